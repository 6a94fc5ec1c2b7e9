"""The registrar: makes every change of facts, in this order: record, commit, close the record.

It is for changes what the guard is for reads. A change that cannot be recorded is not made (I5). The closing
record of one that was recorded and not made says so; so does that of a change whose outcome is unknown, since
a log that calls it not made could be wrong. Commands make the changes that operators order; workers write
what they find out: pins, the platform's answers, whether a file's URL is ours or the provider's.

A change that a failover could take back is not acknowledged: commands wait at the barrier, workers use
`perform_held`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from gateway.directory.edits.changes import Changes
from gateway.model.errors import CachegateError, UnknownOutcome
from gateway.model.recorded import recorded

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable

    from gateway.audit.grouped_log import GroupedLog
    from gateway.audit.log import AuditLog
    from gateway.barrier import BarrierReport
    from gateway.model.stores import FactStore, Moment
    from gateway.model.verdicts import Change, ChangeReceipt

T = TypeVar("T")


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
        try:
            result, moment = await self.store.transact(
                lambda snapshot, batch: operation(Changes(snapshot, batch))
            )
        except UnknownOutcome:
            receipt.close(generation=None, result="unknown, may have been made")
            raise
        except CachegateError as failure:
            receipt.close(generation=None, result=type(failure).__name__.lower())
            raise
        except BaseException:
            receipt.close(generation=None, result="interrupted, may have been made")
            raise
        receipt.close(generation=moment.generation, result="done")
        return Done(result, moment)

    async def perform_held(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Done[T]:
        """As `perform`, but raise `NotHeld` unless every server of the group has it: for writes of workers.

        The change was made all the same. A caller that retries finds it in the facts.
        """
        done = await self.perform(change, operation)
        await self.store.hold_by_all(done.moment)
        return done


def _close_left(recording: Future[ChangeReceipt]) -> None:
    """Record that a change was not made: its caller was cancelled while it was being recorded."""
    if recording.exception() is None:
        recording.result().close(generation=None, result="interrupted")
