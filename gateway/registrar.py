"""The registrar: every change of facts passes here, in this order: record, commit, close the record.

What the guard is for reads, this is for changes. A change that cannot be recorded is not made (I5);
one that was recorded and did not happen says so in its closing record, and so does one of which
nobody can say whether it happened: a log that calls it not made would be wrong. Commands change what
operators order, and workers what they find out: pins, what the platform says, whose URL a file has.

What a failover may take back is not acknowledged: commands wait at the barrier, workers by `perform_held`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gateway.directory.changes import change as run_change
from gateway.model.errors import CachegateError, UnknownOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.barrier import BarrierReport
    from gateway.directory.changes import Changes
    from gateway.model.ports import Recorder
    from gateway.model.stores import FactStore, Moment
    from gateway.model.verdicts import Change

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What a change gave back, and the moment that it made."""

    result: T
    moment: Moment
    barrier: BarrierReport | None = None  # how it became true everywhere, if that was waited for

    @property
    def generation(self) -> int:
        """The generation that it got."""
        return self.moment.generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrar:
    """Changes facts, and says so first."""

    store: FactStore
    recorder: Recorder

    async def perform(self, change: Change, operation: Callable[[Changes], Awaitable[T]]) -> Done[T]:
        """Run one operation as one transaction; it may be run again when facts move under it."""
        receipt = self.recorder.change(change)
        try:
            result, moment = await run_change(self.store, operation)
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
        """The same, and raise `NotHeld` unless every server of the group has it: for what workers write.

        It was made all the same. Whoever asks again finds it in the facts.
        """
        done = await self.perform(change, operation)
        await self.store.hold_by_all(done.moment)
        return done
