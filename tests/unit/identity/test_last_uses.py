"""Last uses: noted for valid keys only, returned once."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import last_uses
from gateway.identity.last_uses import LastUses
from gateway.model.access import Credential, SignedLink
from gateway.model.errors import Reason, Refusal
from gateway.model.facts import KeyKind
from gateway.model.names import KeyId
from gateway.model.stamps import Stamp
from tests import samples

KEY = KeyId("key_abcdefghijkl")
PRINCIPAL = samples.principal(kind=KeyKind.ADMIN, key_id=KEY, tenant=None)


class Inner:
    async def authenticate(self, credential, client, now):
        if isinstance(credential, Credential) and credential.secret == "bad":
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


def test_a_key_is_marked_when_it_is_first_seen_and_not_again():
    asked = []
    uses = LastUses(lambda secret: asked.append(secret) or b"mark of " + secret.encode())
    for now in (1.0, 2.0):
        authenticate(uses, "good", now)
    assert uses.take_marks() == {KEY: b"mark of good"}
    authenticate(uses, "good", 3.0)
    assert uses.take_marks() == {}
    assert asked == ["good"]


def test_marks_that_could_not_be_written_come_again():
    uses = LastUses(str.encode)
    authenticate(uses, "good", 1.0)
    uses.give_back_marks(uses.take_marks())
    assert uses.take_marks() == {KEY: b"good"}


def test_a_refused_key_is_not_marked_and_nothing_is_without_a_marker():
    uses = LastUses(str.encode)
    with pytest.raises(Refusal):
        authenticate(uses, "bad", 1.0)
    assert uses.take_marks() == {}
    plain = LastUses()
    authenticate(plain, "good", 1.0)
    assert plain.take_marks() == {}


def test_how_many_keys_a_worker_remembers_to_have_marked_is_bounded(monkeypatch):
    monkeypatch.setattr(last_uses, "MAX_MARKED", 1)
    uses = LastUses(str.encode)
    for number in range(3):
        uses._marks.note(KeyId(f"key_{number:012}"), Credential("k"))
    assert len(uses._marks.marked) == 1


def test_a_key_that_is_known_to_be_valid_still_is_used_as_well():
    uses = LastUses()
    noting = uses.noting(Inner())
    assert noting.is_valid_still(PRINCIPAL, 1.0, 5.0)
    assert not noting.is_valid_still(PRINCIPAL, 1.0, 0.5)
    assert uses.take() == {KEY: 5.0}


def test_a_link_counts_as_a_use_of_its_key_and_leaves_no_mark():
    uses = LastUses(lambda _: b"mark")
    link = SignedLink(key_id=KEY, expires_at=9, signed=b"/d", mac=b"m")
    asyncio.run(uses.noting(Inner()).authenticate(link, "127.0.0.1", 3.0))
    assert (uses.take(), uses.take_marks()) == ({KEY: 3.0}, {})
