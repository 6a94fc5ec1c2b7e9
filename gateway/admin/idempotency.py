"""Idempotency keys: a change that is sent twice is made once.

What was done with a key is noted in the transaction that does it, so that neither is there without the other.
The notes of one caller are one record, which expires: they are bounded in number and in time, and no caller
reaches those of another. A note says what was made and never how it looked: a key that was made is told once,
in its first answer (I8).

A refused request leaves no note: it is tried anew.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn

import msgspec

from gateway.model.errors import CachegateError, Reason, Refusal

if TYPE_CHECKING:
    from gateway.barrier import BarrierReport
    from gateway.directory.edits.changes import Changes
    from gateway.model.names import KeyId

HEADER = b"idempotency-key"
MAX_KEY_BYTES = 255
MAX_NOTES = 256  # of one caller, at about 150 bytes
KEPT_SECONDS = 86_400.0
RUNNING_SECONDS = 30.0  # longer than a change takes: barrier and transaction have their limits
_DIGEST_BYTES = 16
_KEY = re.compile(rb"[!-~]{1,%d}" % MAX_KEY_BYTES)


class Note(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What was done: by which request, with which status, about what."""

    request: bytes
    made_at: float
    status: int
    subject: str | None
    location: str | None
    generation: int


class Notes(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """All notes of one caller, by the digest of the idempotency key."""

    caller: str
    notes: dict[bytes, Note]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """The idempotency key of one request."""

    caller: KeyId
    key: bytes
    request: bytes

    @property
    def lock(self) -> bytes:
        """The lock of the request that is under way; not a fact."""
        return b"{cachegate}:idem-lock:%b:%b" % (self.caller.encode(), self.key.hex().encode())

    @property
    def record(self) -> bytes:
        """The record of the caller's notes; not a fact."""
        return b"{cachegate}:idem:" + self.caller.encode()


class Replayed(CachegateError):  # noqa: N818 -- an answer, not an error
    """The request was carried out before. `barrier` says how far that is in force by now."""

    def __init__(self, note: Note, barrier: BarrierReport | None = None) -> None:
        super().__init__(note.subject)
        self.note = note
        self.barrier = barrier


def ticket_of(values: list[bytes], caller: KeyId, *parts: bytes) -> Ticket | None:
    """The ticket of a request with these header values; `parts` are what makes it this request."""
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise Refusal(
            Reason.MALFORMED_REQUEST,
            client_detail=f"Idempotency-Key comes once, with 1 to {MAX_KEY_BYTES} characters.",
        )
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return Ticket(
        caller=caller,
        key=sha256(values[0]).digest()[:_DIGEST_BYTES],
        request=sha256(text).digest()[:_DIGEST_BYTES],
    )


async def verify_new(changes: Changes, ticket: Ticket, now: float) -> dict[bytes, Note]:
    """The notes that count. Raises `Replayed`, or `Refusal` for a key that was used otherwise."""
    known = await changes.find_fact(ticket.record, _decode)
    notes = {} if known is None or known.caller != ticket.caller else known.notes
    kept = {key: note for key, note in notes.items() if now - note.made_at < KEPT_SECONDS}
    note = kept.get(ticket.key)
    if note is not None:
        _replay(note, ticket)
    if len(kept) >= MAX_NOTES:
        raise Refusal(Reason.TOO_MANY_IDEMPOTENCY_KEYS)
    return kept


async def note_done(changes: Changes, ticket: Ticket, kept: dict[bytes, Note], note: Note) -> None:
    """Note what this transaction does."""
    record = msgspec.msgpack.encode(Notes(caller=ticket.caller, notes={**kept, ticket.key: note}))
    await changes.put_for(KEPT_SECONDS, ticket.record, record)


def _replay(note: Note, ticket: Ticket) -> NoReturn:
    if note.request != ticket.request:
        raise Refusal(Reason.REUSED_IDEMPOTENCY_KEY)
    raise Replayed(note)


def _decode(raw: bytes) -> Notes | None:
    """The notes; none where the record does not parse, as it expires and is no fact."""
    try:
        return msgspec.msgpack.decode(raw, type=Notes)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
