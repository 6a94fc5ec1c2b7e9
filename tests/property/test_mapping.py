"""The mapping of an outside issuer's claims: a token is of no other tenant than its one rule says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.facts import Scope
from gateway.model.issuers import ClaimMatch, Issuer, MappingRule, binding_digest, find_rule
from gateway.model.names import TenantId

NAMES = st.sampled_from(["repository", "ref", "sub", "environment"])
SEGMENTS = st.sampled_from(["acme", "acme-evil", "vision", "main", "Acme", "a"])
TEXTS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)
PATTERNS = st.one_of(TEXTS, TEXTS.map(lambda text: f"{text}/*"))
VALUES = st.one_of(
    TEXTS,
    TEXTS.map(lambda text: f"{text}/"),
    PATTERNS,
    st.integers(),
    st.lists(TEXTS),
    st.none(),
    st.booleans(),
)
PAIRS = st.tuples(st.text("ab 0123", max_size=4), st.text("ab 0123", max_size=4))
CLAIMS = st.dictionaries(NAMES, VALUES, max_size=4)
MATCHES = st.dictionaries(
    NAMES, st.lists(PATTERNS, min_size=1, max_size=2, unique=True), min_size=1, max_size=2
)


@st.composite
def issuers(draw):
    rules = [
        MappingRule(
            name=f"rule-{number}",
            tenant=TenantId(f"tenant-{number}"),
            claims=tuple(ClaimMatch(claim=name, values=tuple(values)) for name, values in match.items()),
            scopes=frozenset({Scope.READ}),
        )
        for number, match in enumerate(draw(st.lists(MATCHES, min_size=1, max_size=4)))
    ]
    return issuer_with(rules)


def issuer_with(rules):
    return Issuer(
        source="policies:issuers/ci",
        url="https://ci.example",
        audience="a",
        key_set_url="https://ci.example/keys",
        algorithms=("RS256",),
        types=("jwt",),
        leeway_seconds=0,
        max_lifetime_seconds=60,
        max_bindings=10,
        rules=tuple(rules),
    )


def says(rule, claims):
    """The same as the mapping, said in another way: by the segments of texts."""
    for match in rule.claims:
        found = claims.get(match.claim)
        if type(found) is not str:
            return False
        parts = found.split("/")
        wanted = [value.split("/") for value in match.values]
        below = [one[:-1] for one in wanted if one[-1] == "*"]
        is_below = any(
            len(parts) > len(one) and parts[: len(one)] == one and "/".join(parts[len(one) :])
            for one in below
        )
        if not (is_below or parts in [one for one in wanted if one[-1] != "*"]):
            return False
    return True


@given(issuers(), CLAIMS)
def test_a_token_is_of_the_tenant_of_the_one_rule_that_matches_and_of_no_other(issuer, claims):
    matching = [rule for rule in issuer.rules if says(rule, claims)]
    found, _ = find_rule(issuer, claims)
    assert found == (matching[0] if len(matching) == 1 else None)


@given(issuers(), CLAIMS, st.randoms())
def test_the_order_of_rules_decides_about_nothing(issuer, claims, random):
    shuffled = list(issuer.rules)
    random.shuffle(shuffled)
    assert find_rule(issuer_with(shuffled), claims) == find_rule(issuer, claims)


@given(issuers(), CLAIMS, st.dictionaries(st.text(), VALUES))
def test_a_claim_that_no_rule_names_decides_about_nothing(issuer, claims, more):
    named = {match.claim for rule in issuer.rules for match in rule.claims}
    more = {name: value for name, value in more.items() if name not in named}
    assert find_rule(issuer, {**claims, **more}) == find_rule(issuer, claims)


@given(issuers(), CLAIMS)
def test_a_rule_more_opens_nothing_that_another_rule_opened(issuer, claims):
    """A rule for everything that a token says can refuse the token, and never gives it to another tenant."""
    found, _ = find_rule(issuer, claims)
    texts = {name: value for name, value in claims.items() if isinstance(value, str) and "*" not in value}
    if found is None or not texts:
        return
    other = MappingRule(
        name="other",
        tenant=TenantId("other"),
        claims=tuple(ClaimMatch(claim=name, values=(value,)) for name, value in texts.items()),
        scopes=frozenset({Scope.READ}),
    )
    assert find_rule(issuer_with((*issuer.rules, other)), claims)[0] is None


@given(PAIRS, PAIRS)
def test_two_pairs_of_issuer_and_subject_never_share_a_binding(one, other):
    assert (binding_digest(*one) == binding_digest(*other)) is (one == other)
