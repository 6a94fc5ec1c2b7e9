"""Access tokens: what is in one, what is never in one, and every forged one is refused."""

from __future__ import annotations

import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.identity.access_tokens import AccessTokens, TokenOrder, parse_scope
from gateway.identity.json_web_tokens import MAX_TOKEN_BYTES
from gateway.identity.signing_keys import RETIRED_SECONDS, SigningKey, arrange
from gateway.model.access import TOKEN_MARK, Principal
from gateway.model.access_claims import MAX_TOKEN_SECONDS
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.facts import KeyKind, Scope
from gateway.model.names import KeyId, TenantId
from tests.forged_tokens import CASES, Forge

NOW, URL = 1_800_000_000, "https://gateway.example"
KEY_ID = KeyId("key_0123456789ab")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = SigningKey(number=1, kid="k" * 43, private=PRIVATE)
LATER = SigningKey(number=2, kid="l" * 43, private=Ed25519PrivateKey.from_private_bytes(b"l" * 32))
RING = arrange([KEY], {KEY.kid: float(NOW)}, NOW)
FORGE = Forge(private=PRIVATE, kid=KEY.kid, url=URL, key_id=KEY_ID, tenant="acme", now=NOW)


def tokens_with(ring=RING, seconds=MAX_TOKEN_SECONDS):
    tokens = AccessTokens(issuer=URL, seconds=seconds)
    tokens.ring = ring
    return tokens


def principal(**changed):
    usual = {
        "kind": KeyKind.TENANT,
        "key_id": KEY_ID,
        "key_name": "ci",
        "tenant": TenantId("acme"),
        "scopes": frozenset({Scope.DISCOVER, Scope.READ}),
        "expires_at": None,
    }
    return Principal(**usual | changed)


WHOLE = TokenOrder()


def granted(order=WHOLE, now=float(NOW), seconds=MAX_TOKEN_SECONDS, **changed):
    return tokens_with(seconds=seconds).grant(principal(**changed), order, now)


def refusal(work, *arguments, **more):
    with pytest.raises(Refusal) as caught:
        work(*arguments, **more)
    return caught.value.reason


def test_what_is_granted_and_signed_is_what_is_verified():
    tokens = tokens_with()
    claims = tokens.grant(principal(), TokenOrder(only="acme/cars/*"), NOW + 0.5)
    text = tokens.sign(claims)
    assert text.startswith(TOKEN_MARK)
    assert len(text) < MAX_TOKEN_BYTES
    assert tokens.verify(text, NOW + 1) == claims
    assert (claims.key_id, claims.subject, claims.issued_at, claims.expires_at) == (
        *(KEY_ID, "acme"),
        *(NOW, NOW + MAX_TOKEN_SECONDS),
    )


def test_a_token_has_all_the_scopes_of_its_key_or_fewer_and_never_more():
    assert granted().scopes == {Scope.DISCOVER, Scope.READ}
    assert granted(TokenOrder(scopes=frozenset({Scope.READ}))).scopes == {Scope.READ}
    for scopes in ({Scope.INFER}, {Scope.READ, Scope.KEYS_MANAGE}, set()):
        assert refusal(granted, TokenOrder(scopes=frozenset(scopes))) is Reason.EXCESS_SCOPE


def test_a_token_ends_with_its_key_or_before():
    assert granted(expires_at=NOW + 60.9).expires_at == NOW + 60
    assert granted(expires_at=NOW + 10_000.0, seconds=300).expires_at == NOW + 300
    assert refusal(granted, expires_at=NOW + 0.5) is Reason.EXPIRED_KEY


@pytest.mark.parametrize("changed", [{"token_id": "t"}, {"is_link": True}, {"is_of_platform": True}])
def test_a_token_is_given_for_a_key_of_ours_alone(changed):
    assert refusal(granted, **changed) is Reason.NOT_EXCHANGEABLE


def test_a_token_is_for_this_gateway_alone():
    assert granted(TokenOrder(audience=URL))
    assert refusal(granted, TokenOrder(audience="https://other.example")) is Reason.FOREIGN_AUDIENCE


def test_a_key_without_a_tenant_is_its_own_subject():
    assert granted(kind=KeyKind.ADMIN, tenant=None).subject == KEY_ID


@pytest.mark.parametrize("text", ["", "read  discover", " read", "read\t", "READ", "read,discover"])
def test_a_scope_has_one_spelling(text):
    assert refusal(parse_scope, text) is Reason.EXCESS_SCOPE


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_forged_token_is_refused(case):
    text = FORGE.make(case)
    if case["name"] == "sub of another tenant":
        return  # only the key's record says whose it is: test_authenticate_token.py
    assert refusal(tokens_with().verify, text, NOW + 1).value == case["reason"]


def test_there_are_enough_forged_ones_and_the_forge_can_make_good_ones():
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert tokens_with().verify(FORGE.good(), NOW + 1).subject == "acme"


def test_an_ended_token_is_refused_by_the_name_of_its_key():
    with pytest.raises(Refusal) as caught:
        tokens_with().verify(FORGE.good(), NOW + MAX_TOKEN_SECONDS)
    assert (caught.value.reason, caught.value.key_id) == (Reason.EXPIRED_TOKEN, KEY_ID)


def test_a_new_key_verifies_before_it_signs_and_an_old_one_until_its_last_token_has_ended():
    notes = {KEY.kid: float(NOW)}
    waiting = arrange([KEY, LATER], notes, NOW)
    assert waiting.signing is KEY
    assert set(waiting.trusted) == {KEY.kid, LATER.kid}
    notes[LATER.kid] = NOW + 100.0
    rotated = arrange([KEY, LATER], notes, NOW + 100)
    assert rotated.signing is LATER
    last = tokens_with(waiting).sign(tokens_with().grant(principal(), TokenOrder(), NOW + 99.9))
    ends_at = NOW + 99 + MAX_TOKEN_SECONDS
    retired = arrange([KEY, LATER], notes, math.nextafter(ends_at, 0))
    assert tokens_with(retired).verify(last, math.nextafter(ends_at, 0)).subject == "acme"
    ended = arrange([KEY, LATER], notes, NOW + 100 + RETIRED_SECONDS)
    assert set(ended.trusted) == {LATER.kid}
    assert KEY.kid.encode() not in ended.published
    assert refusal(tokens_with(ended).verify, last, NOW + 200) is Reason.UNKNOWN_SIGNING_KEY


def test_a_node_without_the_key_that_signs_signs_with_no_older_one():
    ring = arrange([KEY], {KEY.kid: float(NOW), LATER.kid: NOW + 100.0}, NOW + 101)
    with pytest.raises(Unavailable):
        tokens_with(ring).sign(granted())


def test_before_the_keys_are_known_nothing_is_decided():
    tokens = AccessTokens(issuer=URL, seconds=900)
    for work in (lambda: tokens.sign(granted()), lambda: tokens.verify(FORGE.good(), NOW + 1)):
        with pytest.raises(Unavailable):
            work()
