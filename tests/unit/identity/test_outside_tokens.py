"""Tokens of outside issuers: what they stand on, when keys are asked for, and what becomes of transfers."""

from __future__ import annotations

import asyncio
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm
from msgspec.structs import replace

from gateway.identity import outside_tokens
from gateway.identity.authenticate import Authenticator
from gateway.identity.json_web_tokens import parse
from gateway.identity.outside_tokens import (
    DURING_OUTAGE_SECONDS,
    OVERDUE_SECONDS,
    REFRESH_APART_SECONDS,
    OutsideTokens,
)
from gateway.identity.pepper import Pepper, Peppers
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import Scope, Tenant
from gateway.model.issuers import (
    KEY_SET_SECONDS,
    REFRESH_SECONDS,
    Binding,
    ClaimMatch,
    FoundBinding,
    FoundIssuer,
    Issuer,
    IssuerKeySet,
    MappingRule,
    RuleLeaf,
    binding_digest,
)
from gateway.model.names import BindingId, TenantId
from gateway.model.stamps import Leaf, Stamp

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
URL, KEYS = "https://ci.example", "https://ci.example/keys"
KEY, NEW_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def rule(name="main", tenant="acme", networks=(), **claims):
    return MappingRule(
        name=name,
        tenant=TenantId(tenant),
        claims=tuple(
            ClaimMatch(claim=claim, values=(value,)) for claim, value in (claims or {"ref": "main"}).items()
        ),
        scopes=frozenset({Scope.READ}),
        networks=networks,
    )


def jwk(kid, key):
    return {**OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "EdDSA", "use": "sig"}


def key_set(fetched_at=NOW, **keys):
    keys = keys or {"k1": KEY}
    document = json.dumps({"keys": [jwk(kid, key) for kid, key in keys.items()]}).encode()
    return IssuerKeySet(url=URL, key_set_url=KEYS, document=document, fetched_at=fetched_at)


def token(kid="k1", key=KEY, **claims):
    said = {
        "iss": URL, "aud": "us", "sub": "s", "ref": "main", "iat": int(NOW), "exp": int(NOW) + 600, **claims,
    }  # fmt: skip
    return jwt.encode(said, key, algorithm="EdDSA", headers={"kid": kid})


class Facts:
    """A directory with one issuer, that counts what is asked of it; and what refreshes and binds."""

    def __init__(self):
        self.issuer = Issuer(
            source="policies:issuers/ci",
            url=URL,
            audience="us",
            key_set_url=KEYS,
            algorithms=("EdDSA",),
            types=("jwt",),
            leeway_seconds=0,
            max_lifetime_seconds=3600,
            max_bindings=10,
            rules=(rule(),),
        )
        self.key_set = key_set()
        self.bindings = {}
        self.tenants = {
            "acme": Tenant(tenant_id=TenantId("acme"), name="", is_suspended=False, created_at=1.0)
        }
        self.leaves = {}
        self.refreshed, self.refreshed_soon, self.bound = [], [], []
        self.published = self.key_set

    def leaf(self, name):
        return self.leaves.setdefault(name, Leaf(name, b""))

    def change(self, name):
        self.leaves.pop(name).is_current = False

    async def find_issuer(self, url, *, afresh=False):
        is_ours = self.issuer is not None and url == self.issuer.url
        return FoundIssuer(
            issuer=self.issuer if is_ours else None,
            key_set=self.key_set if is_ours else None,
            leaf=self.leaf(b"issuer"),
            key_set_leaf=self.leaf(b"keys"),
        )

    async def find_binding(self, digest, tenant, *, afresh=False):
        stamp = Stamp(1, (self.leaf(b"binding " + digest), self.leaf(tenant.encode())))
        return FoundBinding(binding=self.bindings.get(digest), tenant=self.tenants.get(tenant), stamp=stamp)

    async def find_binding_again(self, stamp):
        by_rule = next((leaf for leaf in stamp.leaves if isinstance(leaf, RuleLeaf)), None)
        if by_rule is None:
            return None
        [name] = [leaf.name for leaf in stamp.leaves if leaf.name.startswith(b"binding ")]
        found = await self.find_binding(name.removeprefix(b"binding "), by_rule.rule.tenant)
        return await self.find_issuer(by_rule.url), found, by_rule.rule

    async def refresh(self, issuer, known_at):
        self.refreshed.append(known_at)
        if self.published is None:
            raise Unavailable("issuer", "does not answer", Reason.ISSUER_UNDECIDED)
        self.key_set = self.published
        self.change(b"keys")

    def refresh_soon(self, issuer, known_at):
        self.refreshed_soon.append(known_at)

    async def bind(self, issuer, by, subject):
        self.bound.append((by.name, subject))
        digest = binding_digest(issuer.url, subject)
        self.bindings[digest] = Binding(
            binding_id=BindingId("bnd_000000000001"),
            url=issuer.url,
            subject=subject,
            tenant=by.tenant,
            rules=(by.name,),
            created_at=NOW,
        )
        self.change(b"binding " + digest)

    # what a worker's clock says
    time = NOW

    def now(self):
        return self.time


@pytest.fixture
def facts():
    return Facts()


@pytest.fixture
def tokens(facts):
    peppers = Peppers(current=Pepper(id="p1", secret=b"p" * 32), previous=())
    return OutsideTokens(Authenticator(facts, peppers), facts, facts, facts)


async def authenticate(tokens, text, now=NOW, client="192.0.2.1"):
    return await tokens.authenticate(Credential(text), parse(text), client, now)


async def refused(tokens, text, now=NOW, client="192.0.2.1"):
    with pytest.raises(Refusal) as caught:
        await authenticate(tokens, text, now, client)
    assert caught.value.stands_on_facts
    return caught.value.reason


async def test_the_principal_is_the_binding_with_what_its_rule_gives(tokens, facts):
    principal, stamp = await authenticate(tokens, token())
    assert (principal.key_id, principal.tenant, principal.scopes) == (
        "bnd_000000000001",
        "acme",
        {Scope.READ},
    )
    assert (principal.issuer, principal.expires_at) == (URL, NOW + 600)
    assert (principal.key_begins_at, principal.key_ends_at) == (None, None)  # no end of a transfer
    assert facts.bound == [("main", "s")]
    assert stamp.is_current


async def test_a_known_subject_is_not_bound_again(tokens, facts):
    for _ in range(2):
        await authenticate(tokens, token())
    assert len(facts.bound) == 1


async def test_a_verified_token_is_remembered_until_it_ends(tokens, facts):
    text = token()
    principal, _ = await authenticate(tokens, text)
    assert tokens.recall(Credential(text), "192.0.2.1", NOW + 599)[0] is principal
    assert tokens.recall(Credential(text), "192.0.2.1", NOW + 600) is None
    assert tokens.recall(Credential(token(sub="other")), "192.0.2.1", NOW) is None


@pytest.mark.parametrize("moved", [b"issuer", b"keys", b"acme", b"binding"])
async def test_a_remembered_token_is_forgotten_when_what_it_stands_on_moves(tokens, facts, moved):
    text = token()
    await authenticate(tokens, text)
    [name] = [name for name in facts.leaves if name.startswith(moved)]
    facts.change(name)
    assert tokens.recall(Credential(text), "192.0.2.1", NOW) is None


@pytest.mark.parametrize("moved", [b"issuer", b"keys"])
async def test_after_a_change_a_token_stands_on_what_was_read_anew(tokens, facts, moved):
    await authenticate(tokens, token())
    facts.change(moved)
    _, stamp = await authenticate(tokens, token())
    assert stamp.is_current


async def test_networks_of_the_rule_are_checked_at_each_use(tokens, facts):
    facts.issuer = replace(facts.issuer, rules=(rule(networks=("192.0.2.0/24",)),))
    text = token()
    await authenticate(tokens, text)
    assert tokens.recall(Credential(text), "198.51.100.1", NOW) is None
    assert await refused(tokens, text, client="198.51.100.1") is Reason.OUTSIDE_NETWORKS


async def test_a_token_of_an_unknown_issuer_asks_nobody(tokens, facts):
    assert await refused(tokens, token(iss="https://nobody.example")) is Reason.UNKNOWN_ISSUER
    assert (facts.refreshed, facts.bound) == ([], [])


async def test_a_token_that_no_rule_or_more_than_one_matches_is_bound_to_nothing(tokens, facts):
    assert await refused(tokens, token(ref="other")) is Reason.UNMAPPED_TOKEN
    facts.issuer = replace(facts.issuer, rules=(rule(), rule("two", "globex", sub="s")))
    assert await refused(tokens, token()) is Reason.AMBIGUOUS_TOKEN
    assert facts.bound == []


async def test_a_subject_of_another_tenant_is_bound_anew_only_once_the_document_has_changed(tokens, facts):
    facts.tenants["globex"] = replace(facts.tenants["acme"], tenant_id=TenantId("globex"))
    facts.issuer = replace(facts.issuer, generation=5, rules=(rule(), rule("two", "globex", ref="two")))
    await authenticate(tokens, token())
    digest = binding_digest(URL, "s")
    facts.bindings[digest] = replace(facts.bindings[digest], generation=6)
    for _ in range(3):
        assert await refused(tokens, token(ref="two")) is Reason.AMBIGUOUS_TOKEN
    assert facts.bound == [("main", "s")]
    facts.issuer = replace(facts.issuer, generation=7)
    principal, _ = await authenticate(tokens, token(ref="two"))
    assert principal.tenant == "globex"


async def test_a_revoked_binding_is_refused_and_named(tokens, facts):
    await authenticate(tokens, token())
    digest = binding_digest(URL, "s")
    facts.bindings[digest] = replace(facts.bindings[digest], revoked_at=NOW)
    facts.issuer = replace(facts.issuer, rules=(rule("another"),))
    with pytest.raises(Refusal) as caught:
        await authenticate(tokens, token())
    assert (caught.value.reason, caught.value.key_id, caught.value.tenant) == (
        Reason.REVOKED_BINDING,
        "bnd_000000000001",
        "acme",
    )
    assert len(facts.bound) == 1  # nobody asks for another one


# When keys are asked for


async def test_keys_that_are_not_known_are_waited_for(tokens, facts):
    facts.key_set = None
    await authenticate(tokens, token())
    assert facts.refreshed == [None]


async def test_keys_from_another_place_do_not_count(tokens, facts):
    facts.key_set = replace(facts.key_set, key_set_url="https://former.example/keys")
    await authenticate(tokens, token())
    assert facts.refreshed == [NOW]


async def test_an_unknown_kid_asks_for_keys_only_once_they_are_of_an_age(tokens, facts):
    facts.published = key_set(NOW + REFRESH_APART_SECONDS, k1=KEY, k2=NEW_KEY)
    fresh = token("k2", NEW_KEY)
    assert await refused(tokens, fresh, NOW + REFRESH_APART_SECONDS - 1) is Reason.UNKNOWN_SIGNING_KEY
    assert facts.refreshed == []
    await authenticate(tokens, fresh, NOW + REFRESH_APART_SECONDS)
    assert facts.refreshed == [NOW]


async def test_an_unknown_kid_is_undecided_while_the_issuer_is_away(tokens, facts):
    facts.published = None
    with pytest.raises(Unavailable) as caught:
        await authenticate(tokens, token("k2", NEW_KEY), NOW + REFRESH_APART_SECONDS)
    assert caught.value.reason is Reason.ISSUER_UNDECIDED
    await authenticate(tokens, token(), NOW + REFRESH_APART_SECONDS)


async def test_old_keys_are_asked_for_behind_and_too_old_ones_do_not_count(tokens, facts):
    late = NOW + REFRESH_SECONDS
    facts.time = late
    text = token(iat=int(late), exp=int(late) + 600)
    await authenticate(tokens, text, late)
    assert (facts.refreshed, facts.refreshed_soon) == ([], [NOW])
    facts.published = None
    too_late = NOW + KEY_SET_SECONDS
    text = token(iat=int(too_late), exp=int(too_late) + 600)
    with pytest.raises(Unavailable):
        await authenticate(tokens, text, too_late)


async def test_a_key_that_was_withdrawn_while_no_token_came_is_not_believed_once_more(tokens, facts):
    late = facts.time = NOW + OVERDUE_SECONDS
    facts.published = key_set(late, k2=NEW_KEY)
    withdrawn = token(iat=int(late), exp=int(late) + 600)
    assert await refused(tokens, withdrawn, late) is Reason.UNKNOWN_SIGNING_KEY
    assert facts.refreshed == [NOW]


@pytest.mark.parametrize("how", ["failing", "hanging"])
async def test_while_the_issuer_is_away_keys_that_are_overdue_count(tokens, facts, monkeypatch, how):
    async def hang(*_):
        await asyncio.Event().wait()

    if how == "hanging":
        monkeypatch.setattr(facts, "refresh", hang)
        monkeypatch.setattr(outside_tokens, "OVERDUE_PATIENCE_SECONDS", 0.01)
    facts.published = None
    late = facts.time = NOW + OVERDUE_SECONDS
    principal, _ = await authenticate(tokens, token(iat=int(late), exp=int(late) + 600), late)
    assert principal.tenant == "acme"


async def test_a_token_is_remembered_no_longer_than_its_keys_may_stay_unasked(tokens, facts):
    text = token(exp=int(NOW) + 3600)
    _, stamp = await authenticate(tokens, text)
    facts.time = NOW + REFRESH_SECONDS - 1
    assert stamp.is_current
    facts.time = NOW + REFRESH_SECONDS
    assert not stamp.is_current
    _, stamp = await authenticate(tokens, text, facts.time)  # during an outage: for a moment each time
    assert stamp.is_current
    facts.time += DURING_OUTAGE_SECONDS
    assert not stamp.is_current


async def test_a_decision_during_an_outage_lasts_until_it_is_answered(tokens, facts, monkeypatch):
    """However long keys were waited for. A stamp that ended meanwhile leads to other tries, and to a 503."""
    late = NOW + OVERDUE_SECONDS
    arrived = (late // DURING_OUTAGE_SECONDS + 1) * DURING_OUTAGE_SECONDS - 0.5

    async def wait_a_second(*_):
        facts.time = arrived + 1.0
        raise TimeoutError

    monkeypatch.setattr(facts, "refresh", wait_a_second)
    facts.time = arrived
    text = token(iat=int(late), exp=int(late) + 600)
    _, stamp = await authenticate(tokens, text, arrived)
    assert facts.time == arrived + 1.0
    assert stamp.is_current


async def test_a_decision_just_before_a_remembered_while_ends_is_given_the_next(tokens, facts):
    facts.published = None
    late = NOW + REFRESH_SECONDS
    facts.time = (late // DURING_OUTAGE_SECONDS + 1) * DURING_OUTAGE_SECONDS - 0.001
    _, stamp = await authenticate(tokens, token(iat=int(late), exp=int(late) + 600), facts.time)
    facts.time += 1.0
    assert stamp.is_current


async def test_keys_of_a_node_whose_clock_is_ahead_count_and_those_of_the_future_do_not(tokens, facts):
    facts.key_set = facts.published = key_set(NOW + REFRESH_APART_SECONDS)
    await authenticate(tokens, token())
    assert facts.refreshed == []
    facts.key_set, facts.published = key_set(NOW + REFRESH_APART_SECONDS + 1), key_set(NOW)
    await authenticate(tokens, token())
    assert facts.refreshed == [NOW + REFRESH_APART_SECONDS + 1]


# Transfers


async def test_a_transfer_goes_on_without_its_token_and_ends_with_its_rule(tokens, facts):
    _, stamp = await authenticate(tokens, token())
    principal, again = await tokens.reauthenticate(stamp, "192.0.2.1", NOW + 10_000)
    assert (principal.key_id, principal.expires_at) == ("bnd_000000000001", None)
    facts.issuer = replace(facts.issuer, leeway_seconds=1, rules=(rule(), rule("two", ref="two")))
    assert await tokens.reauthenticate(again, "192.0.2.1", NOW)
    facts.issuer = replace(facts.issuer, rules=(rule(ref="other"),))
    with pytest.raises(Refusal) as caught:
        await tokens.reauthenticate(again, "192.0.2.1", NOW)
    assert caught.value.reason is Reason.UNMAPPED_TOKEN


async def test_a_transfer_ends_with_its_binding_and_its_tenant(tokens, facts):
    _, stamp = await authenticate(tokens, token())
    facts.tenants["acme"] = replace(facts.tenants["acme"], is_suspended=True)
    with pytest.raises(Refusal) as caught:
        await tokens.reauthenticate(stamp, "192.0.2.1", NOW)
    assert caught.value.reason is Reason.SUSPENDED_TENANT
    digest = binding_digest(URL, "s")
    facts.bindings[digest] = replace(facts.bindings[digest], revoked_at=NOW)
    with pytest.raises(Refusal) as caught:
        await tokens.reauthenticate(stamp, "192.0.2.1", NOW)
    assert caught.value.reason is Reason.REVOKED_BINDING
    del facts.bindings[digest]
    with pytest.raises(Refusal):
        await tokens.reauthenticate(stamp, "192.0.2.1", NOW)


async def test_the_transfer_of_a_key_is_for_others_to_judge(tokens):
    assert await tokens.reauthenticate(Stamp(1, (Leaf(b"key", b""),)), "192.0.2.1", NOW) is None


# RFC 9864


async def test_a_key_named_ed25519_and_a_token_that_says_so_count_as_eddsa(tokens, facts):
    """PyJWT passes over such a key; this gateway reads both names as one algorithm."""
    named = {**jwk("k1", KEY), "alg": "Ed25519"}
    facts.key_set = replace(facts.key_set, document=json.dumps({"keys": [named]}).encode())
    assert await authenticate(tokens, token())


async def test_a_binding_of_an_earlier_tenant_of_the_name_opens_nothing_of_the_later_one(tokens, facts):
    """The document did not change since: nobody said that its rule means the later one."""
    await authenticate(tokens, token())
    facts.tenants["acme"] = replace(facts.tenants["acme"], record_id="ten_00000000000B")
    facts.change(b"acme")
    digest = next(iter(facts.bindings))
    facts.bindings[digest] = replace(facts.bindings[digest], generation=facts.issuer.generation + 1)
    facts.change(b"binding " + digest)
    before = len(facts.bound)
    assert await refused(tokens, token()) is Reason.AMBIGUOUS_TOKEN
    assert len(facts.bound) == before


async def test_a_tenant_that_does_not_exist_gets_no_binding(tokens, facts):
    facts.tenants.clear()
    assert await refused(tokens, token()) is Reason.SUSPENDED_TENANT
    assert (facts.bound, facts.bindings) == ([], {})
