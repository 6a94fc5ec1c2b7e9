"""The keys that sign access tokens: have the first one sign, replace it, and say which does what.

A rotation has two steps, because a key may not sign before every worker knows it: else a worker would refuse
a token that another one has just made. First the new key is made, a file in this node's state folder, and
waits; other nodes get a copy of the file. Once every worker has reported that it holds the key, a note in
Redis has it sign. The former key verifies until its last token has ended. A rotation that has to wait for
nodes is finished by the same command again: it goes on with the key that waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.token_keys import NO_TOKENS, report_name
from gateway.identity.signing_keys import (
    NO_SIGNING_KEY,
    KeyRole,
    create_token_key,
    key_file,
    load_signing_keys,
    role_of,
)
from gateway.model.errors import Misconfigured
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.barrier import BarrierReport
    from gateway.directory.edits.changes import Changes
    from gateway.identity.signing_keys import SigningKey
    from gateway.operations.session import OperatorSession

LOOK_SECONDS = 0.2
GONE_SECONDS = 60.0  # a worker that was silent for so long has no lease, and reads the folder when it wakes


class TokenKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key as an operator sees it. `file` is None where this node does not hold it."""

    kid: str
    role: KeyRole
    since: float | None  # when it began to sign
    file: str | None
    held_by: int  # workers that have reported it
    workers: int


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a rotation. `lacking` are workers that do not hold the new key, so that it waits."""

    kid: str
    file: str
    is_made: bool
    workers: int
    lacking: tuple[str, ...]
    barrier: BarrierReport | None = None

    @property
    def signs(self) -> bool:
        """Whether the new key signs now."""
        return not self.lacking


async def ensure_signing_key(session: OperatorSession) -> None:
    """Have the newest key sign, if none was chosen yet. Raises `Misconfigured` where this node lacks the key.

    Older keys are noted before it: they were chosen once, by facts that are lost.
    """
    folder = session.settings.token_key_folder
    held, notes = load_signing_keys(folder), await session.listing.signing_notes()
    if not held:
        raise Misconfigured(str(folder), NO_SIGNING_KEY)
    signing = next((kid for kid in notes if role_of(kid, notes, 0.0) is KeyRole.SIGNING), None)
    if signing is None:
        now = session.clock.now()

        async def operation(changes: Changes) -> None:
            if await changes.signing_notes():  # another node was first
                return
            for key in held[:-1]:
                await changes.put_signing_note(key.kid, float(key.number))
            await changes.put_signing_note(held[-1].kid, now)

        await session.perform("tokens.rotate", operation, subject=(held[-1].kid,))
        notes = await session.listing.signing_notes()
        signing = next((kid for kid in notes if role_of(kid, notes, 0.0) is KeyRole.SIGNING), None)
    if signing not in {key.kid for key in held}:
        raise Misconfigured(
            str(folder),
            f"does not hold the key {signing} that signs access tokens: copy the folder from a node that "
            "does, since every node has to have the same ones",
        )


async def rotate(session: OperatorSession, *, patience_seconds: float) -> Rotation:
    """Make a new key, or take the one that waits, and have it sign once every worker holds it."""
    await ensure_signing_key(session)
    folder = session.settings.token_key_folder
    notes = await session.listing.signing_notes()
    waiting = [key for key in load_signing_keys(folder) if key.kid not in notes]
    new = waiting[-1] if waiting else create_token_key(folder)
    deadline = session.clock.monotonic() + patience_seconds
    while True:
        reports = await _reports(session)
        lacking = tuple(sorted(worker for worker, held in reports.items() if new.kid not in held))
        if not lacking or session.clock.monotonic() >= deadline:
            break
        await asyncio.sleep(LOOK_SECONDS)
    barrier = None if lacking else await _choose(session, new)
    return Rotation(
        kid=new.kid,
        file=str(key_file(folder, new.number)),
        is_made=not waiting,
        workers=len(reports),
        lacking=lacking,
        barrier=barrier,
    )


async def list_keys(session: OperatorSession) -> list[TokenKeyView]:
    """Every key that this node holds or that was chosen, oldest first."""
    folder, now = session.settings.token_key_folder, session.clock.now()
    held, notes = load_signing_keys(folder), await session.listing.signing_notes()
    reports = await _reports(session)
    files = {key.kid: str(key_file(folder, key.number)) for key in held}
    waiting = [key.kid for key in held if key.kid not in notes]
    return [
        TokenKeyView(
            kid=kid,
            role=role_of(kid, notes, now),
            since=notes.get(kid),
            file=files.get(kid),
            held_by=sum(kid in one for one in reports.values()),
            workers=len(reports),
        )
        for kid in [*sorted(notes, key=lambda kid: notes[kid]), *waiting]
    ]


async def _choose(session: OperatorSession, new: SigningKey) -> BarrierReport | None:
    now = session.clock.now()

    async def operation(changes: Changes) -> None:
        notes = await changes.signing_notes()
        # The clock of another node may have been ahead: the key that is noted last is the one that signs.
        since = max([now, *(noted + 0.001 for noted in notes.values())])
        await changes.put_signing_note(new.kid, since)

    return (await session.perform("tokens.rotate", operation, subject=(new.kid,))).barrier


async def _reports(session: OperatorSession) -> Mapping[str, frozenset[str]]:
    """The keys that each worker has reported, of all workers that may serve now."""
    fleet = await session.store.look(Moment())
    workers = [one.worker for one in fleet.workers if one.silence(fleet.stamp) < GONE_SECONDS]
    if not workers:
        return {}
    _, values = await session.store.read([report_name(one) for one in workers])
    return {
        worker: frozenset((value or b"").decode("ascii", "replace").split())
        for worker, value in zip(workers, values, strict=True)
        if value != NO_TOKENS
    }
