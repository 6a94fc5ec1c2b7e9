"""Last uses: noted for valid keys only, taken out once."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity.last_uses import LastUses
from gateway.model.access import Credential, Principal
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind, Stamp
from gateway.model.names import KeyId

KEY = KeyId("key_abcdefghijkl")
PRINCIPAL = Principal(
    kind=KeyKind.ADMIN, key_id=KEY, key_name="", tenant=None, scopes=frozenset(), expires_at=None
)


class Inner:
    async def authenticate(self, credential, client, now):
        if credential.secret == "bad":
            raise Refusal(Reason.REVOKED_KEY, key_id=KEY)
        return PRINCIPAL, Stamp(0, ())

    def is_valid_still(self, principal, since, now):
        return since <= now


def authenticate(uses, secret, now):
    return asyncio.run(uses.noting(Inner()).authenticate(Credential(secret), "127.0.0.1", now))


def test_the_latest_use_of_a_valid_key_is_noted_and_taken_out_once():
    uses = LastUses()
    authenticate(uses, "good", 1.0)
    assert authenticate(uses, "good", 2.0)[0] is PRINCIPAL
    assert uses.take() == {KEY: 2.0}
    assert uses.take() == {}


def test_a_refused_key_was_not_used():
    uses = LastUses()
    with pytest.raises(Refusal):
        authenticate(uses, "bad", 1.0)
    assert uses.take() == {}


def test_a_key_that_is_known_to_be_valid_still_is_used_as_well():
    uses = LastUses()
    noting = uses.noting(Inner())
    assert noting.is_valid_still(PRINCIPAL, 1.0, 5.0)
    assert not noting.is_valid_still(PRINCIPAL, 1.0, 0.5)
    assert uses.take() == {KEY: 5.0}
