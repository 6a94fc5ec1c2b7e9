"""An access token stands for its key: checked with it at every use, never more than it, never longer."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.identity.access_tokens import AccessTokens, TokenOrder
from gateway.identity.any_credential import AnyAuthenticator
from gateway.identity.authenticate import Authenticator
from gateway.identity.authenticate_link import LinkAuthenticator
from gateway.identity.authenticate_token import TokenAuthenticator
from gateway.identity.introspection import Introspection
from gateway.identity.keys_by_id import KeysById
from gateway.identity.links import LinkKeys, sign
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.identity.pepper import Pepper, Peppers
from gateway.identity.signing_keys import arrange, create_token_key, load_signing_keys
from gateway.model.access import Credential, SignedLink
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind, Scope, Tenant
from gateway.model.names import TenantId
from gateway.model.rulings import SOURCE_PLATFORM
from gateway.model.stamps import Leaf, Stamp
from tests.forged_tokens import CASES, Forge

NOW, URL, CLIENT = 1_800_000_000.0, "https://gateway.example", "192.0.2.1"
PEPPERS = Peppers(current=Pepper(id="p1", secret=b"1" * 32))
ACME = Tenant(tenant_id=TenantId("acme"), name="Acme", is_suspended=False, created_at=NOW)
ORDER = KeyOrder(now=NOW, kind=KeyKind.TENANT, tenant=ACME.tenant_id, name="ci")
NEW, OTHER = (issue_key(ORDER, environment="live", peppers=PEPPERS) for _ in range(2))
KEY_ID = NEW.key.key_id
LINK_KEYS = LinkKeys(current=b"k" * 32)
PATH = b"/d/acme/cars/1/-/pkgA1/weights.onnx"


class Directory:
    """Records by digest, the index by id, and the requests made of both."""

    def __init__(self, key=NEW.key, tenant=ACME):
        self.keys = {NEW.digest: key, OTHER.digest: OTHER.key}
        self.index = {KEY_ID: NEW.digest, OTHER.key.key_id: OTHER.digest}
        self.tenant = tenant
        self.stamp = Stamp(7, (Leaf(b"key", b"record"),))
        self.asked = []

    async def find_key(self, digests):
        self.asked += digests
        return next((self.keys[one] for one in digests if one in self.keys), None), self.tenant, self.stamp

    async def find_key_digest(self, key_id):
        self.asked.append(key_id)
        return self.index.get(key_id)

    def change(self, **changes):
        self.stamp.leaves[0].is_current = False
        self.stamp = Stamp(8, (Leaf(b"key", b"another record"),))
        self.keys[NEW.digest] = replace(self.keys[NEW.digest], **changes)


class World:
    def __init__(self, folder, directory=None, *, has_tokens=True):
        self.directory = directory or Directory()
        self.key = create_token_key(folder)
        self.folder = folder
        self.tokens = AccessTokens(issuer=URL, seconds=900) if has_tokens else None
        if self.tokens is not None:
            self.tokens.ring = arrange([self.key], {self.key.kid: NOW}, NOW)
        keys, by_id = Authenticator(self.directory, PEPPERS), KeysById(self.directory)
        self.subject = TokenAuthenticator(keys, by_id, self.tokens)
        self.any = AnyAuthenticator(
            keys, LinkAuthenticator(keys, by_id, LINK_KEYS, self.subject), self.subject
        )
        self.introspection = Introspection(self.subject, keys)

    def principal(self, token=NEW.token):
        return asyncio.run(self.any.authenticate(Credential(token), CLIENT, NOW))[0]

    def token(self, **order):
        return self.tokens.sign(self.tokens.grant(self.principal(), TokenOrder(**order), NOW))

    def authenticate(self, text, client=CLIENT, now=NOW):
        return asyncio.run(self.any.authenticate(Credential(text), client, now))

    def recall(self, text, client=CLIENT, now=NOW):
        return self.any.recall(Credential(text), client, now)

    def refusal(self, text, **circumstances):
        with pytest.raises(Refusal) as caught:
            self.authenticate(text, **circumstances)
        assert self.recall(text, **circumstances) is None
        assert text not in str(caught.value)
        return caught.value.reason

    def told(self, text, asking=None, now=NOW):
        asking = asking or self.principal()
        return asyncio.run(self.introspection.look(text, asking, now))[0].claims


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "tokens")


def test_a_token_is_its_key_cut_to_what_was_asked_for(world):
    text = world.token(scopes=frozenset({Scope.READ}), only="acme/cars/*")
    principal, stamp = world.authenticate(text)
    assert (principal.key_id, principal.tenant, principal.is_link) == (KEY_ID, "acme", False)
    assert (principal.scopes, principal.only) == ({Scope.READ}, "acme/cars/*")
    assert principal.token_id
    assert stamp is world.directory.stamp


def test_it_ends_with_the_token_and_a_transfer_with_the_key(world):
    principal, _ = world.authenticate(world.token())
    assert principal.expires_at == NOW + 900
    assert (principal.key_begins_at, principal.key_ends_at) == (None, None)
    assert not world.any.is_valid_still(principal, NOW, NOW + 900)


def test_a_scope_that_its_key_no_longer_has_is_gone(world):
    text = world.token()
    world.directory.change(scopes=frozenset({Scope.DISCOVER}))
    assert world.authenticate(text)[0].scopes == {Scope.DISCOVER}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": NOW}, Reason.REVOKED_KEY),
        ({"expires_at": NOW}, Reason.EXPIRED_KEY),
        ({"not_before": NOW + 1}, Reason.NOT_YET_VALID),
        ({"networks": ("198.51.100.0/24",)}, Reason.OUTSIDE_NETWORKS),
        ({"tenant": TenantId("globex")}, Reason.INVALID_TOKEN),
        ({"source": SOURCE_PLATFORM}, Reason.INVALID_TOKEN),
    ],
)
def test_a_token_that_was_verified_is_refused_for_what_its_key_becomes(world, change, reason):
    text = world.token()
    world.authenticate(text)
    assert world.recall(text) is not None
    world.directory.change(**change)
    assert world.refusal(text) is reason


def test_a_token_of_a_suspended_tenant_is_refused(world):
    text = world.token()
    world.directory.tenant = replace(ACME, is_suspended=True)
    assert world.refusal(text) is Reason.SUSPENDED_TENANT


def test_a_token_whose_key_is_gone_is_refused_by_its_id(world):
    text = world.token()
    world.directory.index.clear()
    del world.directory.keys[NEW.digest]
    assert world.refusal(text) is Reason.UNKNOWN_KEY


def test_a_known_token_is_recalled_without_a_look_until_it_ends(world):
    text = world.token()
    found = world.authenticate(text)
    looked = len(world.directory.asked)
    assert world.recall(text, now=NOW + 899) == found
    assert world.recall(text, now=NOW + 900) is None
    assert world.recall(text, now=NOW + 1) is None  # a clock that goes back revives nothing
    assert len(world.directory.asked) == looked


def test_a_known_token_is_recalled_from_inside_the_networks_of_its_key_only(tmp_path):
    world = World(tmp_path / "tokens", Directory(replace(NEW.key, networks=("192.0.2.0/24",))))
    text = world.token()
    world.authenticate(text)
    assert world.recall(text) is not None
    assert world.recall(text, client="198.51.100.7") is None


def test_a_known_token_is_forgotten_when_the_keys_that_verify_change(world):
    text = world.token()
    world.authenticate(text)
    world.tokens.ring = arrange([create_token_key(world.folder)], {}, NOW)
    assert world.recall(text) is None
    assert world.refusal(text) is Reason.UNKNOWN_SIGNING_KEY
    assert len(world.subject.memories[0]) == 0


def test_a_token_is_not_remembered_if_its_key_is_withdrawn_while_it_is_authenticated(world):
    text, others = world.token(), arrange([create_token_key(world.folder)], {}, NOW)
    find_key = world.directory.find_key

    async def find_while_another_token_comes(digests):
        world.directory.find_key = find_key
        world.tokens.ring = others
        with pytest.raises(Refusal):
            await world.any.authenticate(Credential(text), CLIENT, NOW)
        return await find_key(digests)

    world.directory.find_key = find_while_another_token_comes
    world.authenticate(text)
    assert world.recall(text) is None


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_forged_token_is_refused_before_any_fact_is_looked_up(world, case):
    forge = Forge(
        private=world.key.private, kid=world.key.kid, url=URL, key_id=KEY_ID, tenant="acme", now=int(NOW)
    )
    text = forge.make(case)
    if text.startswith("eyJ"):
        assert world.refusal(text).value == case["reason"]
        if case["name"] != "sub of another tenant":  # which the key's record tells
            assert world.directory.asked == []
    assert world.told(text) is None


def test_where_no_tokens_are_issued_none_is_ours_and_none_is_taken_for_a_key(tmp_path):
    text = World(tmp_path / "a").token()
    world = World(tmp_path / "b", has_tokens=False)
    assert world.refusal(text) is Reason.MALFORMED_TOKEN
    assert world.directory.asked == []


def test_a_text_that_begins_like_a_token_is_never_looked_up_as_a_key(world):
    assert world.refusal("eyJ-a-key-of-some-other-system") is Reason.MALFORMED_TOKEN
    assert world.directory.asked == []


def link_of(key_id, beside):
    ends_at = int(NOW) + 60
    mac = sign(LINK_KEYS, key_id=key_id, expires_at=ends_at, signed=PATH)
    return SignedLink(key_id=key_id, expires_at=ends_at, signed=PATH, mac=mac, beside=Credential(beside))


def test_a_token_beside_a_link_has_to_be_of_the_key_of_the_link(world):
    text = world.token()
    principal, _ = asyncio.run(world.any.authenticate(link_of(KEY_ID, text), CLIENT, NOW))
    assert principal.is_link
    with pytest.raises(Refusal) as caught:
        asyncio.run(world.any.authenticate(link_of(OTHER.key.key_id, text), CLIENT, NOW))
    assert caught.value.reason is Reason.CONFLICTING_CREDENTIALS


# Introspection


def test_a_caller_is_told_about_tokens_of_its_own_tenant(world):
    text = world.token(only="acme/cars/1")
    claims = world.told(text)
    assert (claims.key_id, claims.subject, claims.only) == (KEY_ID, "acme", "acme/cars/1")


def test_a_caller_is_told_nothing_about_tokens_of_another_tenant_and_an_admin_is(world):
    text, own = world.token(), world.principal()
    assert world.told(text, replace(own, tenant=TenantId("globex"))) is None
    assert world.told(text, replace(own, kind=KeyKind.ADMIN, tenant=None)) is not None


@pytest.mark.parametrize("change", [{"revoked_at": NOW}, {"expires_at": NOW}, {"not_before": NOW + 1}])
def test_a_token_whose_key_is_not_valid_is_not_active(world, change):
    text, asking = world.token(), world.principal(OTHER.token)
    world.directory.change(**change)
    assert world.told(text, asking) is None


def test_whether_a_token_is_active_does_not_depend_on_who_asks_from_where(tmp_path):
    world = World(tmp_path / "tokens", Directory(replace(NEW.key, networks=("192.0.2.0/24",))))
    text, asking = world.token(), world.principal(OTHER.token)
    claims, _ = asyncio.run(world.introspection.look(text, asking, NOW))
    assert claims.claims is not None


@pytest.mark.parametrize(
    "text", ["", "x", NEW.token, "eyJhbGciOiJub25lIn0.e30."], ids=["empty", "short", "a key", "unsigned"]
)
def test_what_is_no_token_of_ours_is_not_active(world, text):
    assert world.told(text) is None


def test_a_token_that_ended_is_not_active(world):
    assert world.told(world.token(), now=NOW + 900) is None


# Files


def test_keys_are_read_in_the_order_of_their_numbers(tmp_path):
    made = [create_token_key(tmp_path / "tokens") for _ in range(11)]
    assert [one.kid for one in load_signing_keys(tmp_path / "tokens")] == [one.kid for one in made]
    assert (tmp_path / "tokens" / "t11.pem").stat().st_mode & 0o777 == 0o600
    assert "private" not in repr(made[0])
    assert load_signing_keys(tmp_path / "nothing") == ()


def test_a_token_is_of_the_record_of_its_tenant_and_not_of_a_name(tmp_path):
    """Also where the key's record were that of a later tenant of the name."""
    first, second = "ten_00000000000A", "ten_00000000000B"
    directory = Directory(replace(NEW.key, tenant_record=first), replace(ACME, record_id=first))
    world = World(tmp_path, directory)
    text = world.token()
    assert world.authenticate(text)[0].tenant_record == first
    assert world.told(text).tenant_record == first
    directory.change(tenant_record=second)
    directory.tenant = replace(ACME, record_id=second)
    assert world.refusal(text) is Reason.INVALID_TOKEN
