"""Notes of what was done under idempotency keys: bounded in number and time, each caller's own."""

from __future__ import annotations

import pytest

from gateway.admin.idempotency import (
    KEPT_SECONDS,
    MAX_NOTES,
    Note,
    Replayed,
    note_done,
    ticket_of,
    verify_new,
)
from gateway.directory.edits.changes import change
from gateway.model.errors import Reason, Refusal
from gateway.model.names import KeyId

CALLER, OTHER = KeyId("key_000000000001"), KeyId("key_000000000002")


def ticket(key, request=b"POST /tenants", caller=CALLER):
    return ticket_of([key], caller, request)


async def note(session, one, now):
    """What a change does with its ticket, `now`."""

    async def work(changes):
        kept = await verify_new(changes, one, now)
        done = Note(
            request=one.request,
            made_at=now,
            status=201,
            subject="acme",
            location=None,
            generation=changes.generation,
        )
        await note_done(changes, one, kept, done)

    await change(session.store, work)


def test_a_caller_has_so_many_and_the_oldest_make_room_in_time(installation_here):
    async def work(session):
        for number in range(MAX_NOTES):
            await note(session, ticket(b"key-%d" % number), 1000.0 + number)
        with pytest.raises(Refusal) as refused:
            await note(session, ticket(b"one-more"), 2000.0)
        assert refused.value.reason is Reason.TOO_MANY_IDEMPOTENCY_KEYS
        await note(session, ticket(b"one-more", caller=OTHER), 2000.0)
        await note(session, ticket(b"one-more"), 1000.0 + KEPT_SECONDS)  # the first has ended by then
        with pytest.raises(Replayed):
            await note(session, ticket(b"one-more"), 1001.0 + KEPT_SECONDS)

    installation_here.in_session(work)


def test_the_same_key_is_replayed_for_the_same_request_alone(installation_here):
    async def work(session):
        await note(session, ticket(b"k"), 1000.0)
        with pytest.raises(Replayed) as replayed:
            await note(session, ticket(b"k"), 1001.0)
        assert replayed.value.note.subject == "acme"
        with pytest.raises(Refusal) as refused:
            await note(session, ticket(b"k", b"POST /keys"), 1001.0)
        assert refused.value.reason is Reason.REUSED_IDEMPOTENCY_KEY

    installation_here.in_session(work)


def test_notes_that_do_not_parse_are_none(installation_here):
    async def work(session):
        await session.store.put_for({ticket(b"k").record: b"\xc1 no notes"}, 60)
        await note(session, ticket(b"k"), 1000.0)

    installation_here.in_session(work)


@pytest.mark.parametrize("values", [[b""], [b"a", b"a"], [b"a b"], [b"\xff"], [b"a" * 256], [b"a\tb"]])
def test_a_key_is_visible_ascii_and_comes_once(values):
    with pytest.raises(Refusal) as refused:
        ticket_of(values, CALLER, b"x")
    assert refused.value.reason is Reason.MALFORMED_REQUEST


def test_parts_of_a_request_do_not_run_into_each_other():
    assert ticket_of([b"k"], CALLER, b"ab", b"c").request != ticket_of([b"k"], CALLER, b"a", b"bc").request
