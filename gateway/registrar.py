"""The registrar: makes every change of facts, in this order: record, commit, close the record.

It is for changes what the guard is for reads. A change that cannot be recorded is not made (I5). The closing
record of one that was recorded and not made says so; so does that of a change whose outcome is unknown, since
a log that calls it not made could be wrong. Commands make the changes that operators order; workers write
what they find out: pins, the platform's answers, whether a file's URL is ours or the provider's.

A change that a failover could take back is not acknowledged: commands wait at the barrier, workers use
`perform_held`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from gateway.directory.edits.changes import Changes
from gateway.model.errors import CachegateError, UnknownOutcome
from gateway.model.recorded import recorded

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.audit.grouped_log import GroupedLog
    from gateway.audit.log import AuditLog
    from gateway.barrier import BarrierReport
    from gateway.model.access import Principal
    from gateway.model.stores import Batch, FactSnapshot, FactStore, Moment
    from gateway.model.verdicts import Change, ChangeReceipt

T = TypeVar("T")

MAX_DIGESTED = 1_000  # records of one change: what is before it has to be read for it


class Done(msgspec.Struct, Generic[T], frozen=True):
    """The result of a change, and the moment (generation and mark) that it got."""

    result: T
    moment: Moment
    barrier: BarrierReport | None = None  # how it came into force everywhere, if that was waited for

    @property
    def generation(self) -> int:
        """The generation of the change."""
        return self.moment.generation


class Registrar(msgspec.Struct, frozen=True, kw_only=True):
    """Makes changes of facts, and records each one first."""

    store: FactStore
    recorder: AuditLog | GroupedLog

    async def perform(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Done[T]:
        """Run one operation as one transaction; it is run again when facts change meanwhile."""
        receipt = await recorded(self.recorder.change(change), if_left=_close_left)
        digests: tuple[str, str] | None = None

        async def plan(snapshot: FactSnapshot, batch: Batch) -> T:
            nonlocal digests
            result = await operation(Changes(snapshot, batch))
            digests = await _digests(snapshot, batch) if change.is_digested else None
            return result

        try:
            result, moment = await self.store.transact(plan)
        except UnknownOutcome:
            receipt.close(generation=None, result="unknown, may have been made")
            raise
        except CachegateError as failure:
            receipt.close(generation=None, result=type(failure).__name__.lower())
            raise
        except BaseException:
            receipt.close(generation=None, result="interrupted, may have been made")
            raise
        receipt.close(generation=moment.generation, result="done", digests=digests)
        return Done(result, moment)

    def note_refused(
        self, *, actor: str, action: str, reason: str, principal: Principal, subject: tuple[str, ...] = ()
    ) -> None:
        """Record that a caller who may administer asked for a change that was not made, and why."""
        # The package of the log takes 40 ms to import, and commands that change nothing do without it.
        from gateway.audit.record import RefusedChangeRecord  # noqa: PLC0415

        self.recorder.note(
            RefusedChangeRecord,
            actor=actor,
            action=action,
            reason=reason,
            tenant=principal.tenant,
            key_id=principal.key_id,
            subject=subject,
        )

    async def perform_held(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Done[T]:
        """As `perform`, but raise `NotHeld` unless every server of the group has it: for writes of workers.

        The change was made all the same. A caller that retries finds it in the facts.
        """
        done = await self.perform(change, operation)
        await self.store.hold_by_all(done.moment)
        return done


async def _digests(snapshot: FactSnapshot, batch: Batch) -> tuple[str, str] | None:
    """The digests of the records that a change writes, before and after it; None where it writes none.

    Each is the SHA-256 of all names and contents, with their lengths, in the order of the names. What is
    no fact (it expires) is left out, and so is a change of more records than an operator makes by hand.
    """
    names = sorted(batch.facts.keys() - batch.seconds.keys())
    if not names or len(names) > MAX_DIGESTED:
        return None
    before = await snapshot.read(names)
    return _digest(names, before), _digest(names, [batch.facts[name] for name in names])


def _digest(names: Sequence[bytes], records: Sequence[bytes | None]) -> str:
    digest = sha256()
    for name, record in zip(names, records, strict=True):
        size = -1 if record is None else len(record)
        digest.update(b"%d:%b%d:%b" % (len(name), name, size, record or b""))
    return digest.hexdigest()


def _close_left(recording: Future[ChangeReceipt]) -> None:
    """Record that a change was not made: its caller was cancelled while it was being recorded."""
    if recording.exception() is None:
        recording.result().close(generation=None, result="interrupted")
