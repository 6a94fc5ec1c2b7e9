from __future__ import annotations

from gateway.model.errors import Reason
from gateway.model.facts import Scope
from gateway.model.issuers import (
    Binding,
    ClaimMatch,
    Issuer,
    MappingRule,
    RuleLeaf,
    binding_digest,
    find_rule,
    key_of,
)
from gateway.model.names import BindingId, TenantId
from gateway.model.stamps import Leaf

URL = "https://ci.example"


def rule(name, tenant="acme", **claims):
    return MappingRule(
        name=name,
        tenant=TenantId(tenant),
        claims=tuple(ClaimMatch(claim=claim, values=tuple(values)) for claim, values in claims.items()),
        scopes=frozenset({Scope.READ}),
    )


def issuer(*rules):
    return Issuer(
        source="policies:issuers/ci",
        url=URL,
        audience="a",
        key_set_url="https://ci.example/keys",
        algorithms=("RS256",),
        types=("jwt",),
        leeway_seconds=0,
        max_lifetime_seconds=60,
        max_bindings=10,
        rules=rules,
    )


def test_a_claim_matches_one_of_its_texts_to_the_letter():
    match = ClaimMatch(claim="ref", values=("main", "v/*"))
    assert match.matches({"ref": "main"})
    for other in ("Main", "main ", "mai", "main2", "", "*", "v/*"[:1]):
        assert not match.matches({"ref": other}), other


def test_a_prefix_matches_what_is_below_it_and_not_the_prefix_alone():
    match = ClaimMatch(claim="ref", values=("refs/tags/*",))
    assert match.matches({"ref": "refs/tags/v1"})
    assert not match.matches({"ref": "refs/tags/"})
    assert not match.matches({"ref": "refs/tags"})
    assert not match.matches({"ref": "refs/tagsx/v1"})


def test_a_claim_of_another_type_matches_nothing():
    match = ClaimMatch(claim="ref", values=("main", "1", "True"))
    for value in (1, True, None, ["main"], {"main": "main"}, 1.0):
        assert not match.matches({"ref": value})
    assert not match.matches({})


def test_every_claim_of_a_rule_has_to_match():
    both = rule("both", ref=["main"], repository=["acme/vision"])
    assert both.matches({"ref": "main", "repository": "acme/vision", "more": 1})
    assert not both.matches({"ref": "main"})
    assert not both.matches({"ref": "main", "repository": "acme/other"})


def test_a_token_counts_only_where_exactly_one_rule_matches():
    ci = issuer(rule("one", ref=["main"]), rule("two", "globex", repository=["acme/vision"]))
    assert find_rule(ci, {"ref": "main"})[0].name == "one"
    assert find_rule(ci, {"ref": "other"}) == (None, Reason.UNMAPPED_TOKEN)
    assert find_rule(ci, {"ref": "main", "repository": "acme/vision"}) == (None, Reason.AMBIGUOUS_TOKEN)


def test_no_two_pairs_of_issuer_and_subject_share_a_name():
    pairs = [
        ("https://a", "b"),
        ("https://ab", ""),
        ("https://", "ab"),
        ("https://a", "b "),
        ("", "https://ab"),
    ]
    assert len({binding_digest(*pair) for pair in pairs}) == len(pairs)


def test_a_binding_is_judged_with_what_its_rule_gives():
    binding = Binding(
        binding_id=BindingId("bnd_000000000001"),
        url=URL,
        subject="s",
        tenant=TenantId("acme"),
        rules=("one",),
        created_at=1.0,
        revoked_at=2.0,
    )
    key = key_of(binding, rule("one"))
    assert (key.key_id, key.tenant, key.scopes, key.revoked_at) == (
        "bnd_000000000001",
        "acme",
        {Scope.READ},
        2.0,
    )


def test_the_leaf_of_a_rule_is_current_while_its_issuers_record_is():
    inner = Leaf(b"name", b"value")
    leaf = RuleLeaf(inner, URL, rule("one"))
    assert leaf.is_current
    leaf.is_current = False  # only the near cache says so, of the record itself
    assert leaf.is_current
    inner.is_current = False
    assert not leaf.is_current
