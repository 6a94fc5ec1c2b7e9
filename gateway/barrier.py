"""The barrier: after a change, waits until no worker can start an answer on older facts (I6).

First, every server of the replication group must have the change, since any of them may be promoted next. A
change that fewer servers have is not called sure: a failover can take it back (`held by 2 of 3`).

Then every worker must have applied it. A worker has when it has acknowledged a generation that is not older,
which takes it milliseconds after it is notified. While the server has been the same for longer than a lease
(its stamp is the settled one), all workers with a lease are in its register, and reading the register is
enough. Otherwise, or when a worker does not acknowledge, the leases are waited out: a valid lease was granted
before every server had the change, so it ends one lease length after that, whatever became of the worker.
Where a tenant has a degraded period (`last-known-good`), that period is added; and a worker that has not yet
applied the change that shortened the period still uses the longer one. After such a wait the register is read
once more, to find out whether all servers still have the change: one may have been restored from a copy.

All times are taken on the waiter's own monotonic clock. The margin is for clocks that run at different speed.
Workers write beside the register how long their lease is: whoever waits may have been started with a shorter
setting, and the longer of the two counts.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.redis_fleet import Fleet, Registered
    from gateway.adapters.redis_store import RedisStore
    from gateway.directory.reading.degraded_modes import DegradedPeriod
    from gateway.model.clocks import MonotonicClock
    from gateway.model.stores import Moment

MARGIN_SECONDS = 0.05  # a lease of 1 s could outlast it only on clocks that differ by 5 %
FIRST_LOOK_SECONDS = 0.0005
LONGEST_LOOK_SECONDS = 0.01
LOOK_GROWTH = 1.5
HOLD_SECONDS = 0.3  # one wait for the replicas; it is repeated until the deadline
HOLD_PAUSE_SECONDS = 0.05


class BarrierReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of a barrier: the change is in force everywhere, or why and until when it may not be."""

    generation: int
    workers: int  # that had to apply it; 0 and not sure: the register could not be used
    acknowledged: int  # of these; the leases of the others have ended
    milliseconds: float
    is_sure: bool
    sure_in_seconds: float | None = 0.0  # counted from the end of the wait, if not sure yet; None: unknown
    held: int = 1  # servers that have the change
    servers: int = 1  # that must have it
    why: str = ""  # why it is not sure


async def await_workers(
    register: RedisStore,
    about: Moment,
    *,
    lease_seconds: float,
    patience_seconds: float,
    clock: MonotonicClock,
    degraded_periods: Sequence[DegradedPeriod] = (),
    is_settled: bool = False,
) -> BarrierReport:
    """Wait until every worker has acknowledged this moment, or cannot act on anything older any more.

    `is_settled`: the server is a single one and loses nothing that it acknowledged, so that its register is
    always complete (the embedded server).
    """
    wait = _Wait(about, lease_seconds, clock.monotonic(), degraded_periods, is_settled=is_settled)
    deadline = wait.started + patience_seconds
    first = found = await register.look(about, hold_seconds=HOLD_SECONDS)
    while not found.is_whole:
        if not (found.is_known and found.is_ours) or clock.monotonic() >= deadline:
            return wait.report(first, found, clock.monotonic(), ends_at=None)
        await asyncio.sleep(HOLD_PAUSE_SECONDS)
        found = await register.look(about, hold_seconds=HOLD_SECONDS)
    wait.lengthen(found.lease_seconds)
    first, held_at, pause = found, clock.monotonic(), FIRST_LOOK_SECONDS
    if found.servers > 1:
        # That look was answered before the replicas were waited for. One that was attached meanwhile may have
        # given leases under another server: it is counted among them, and only a later stamp tells of it.
        found = await register.look(about, prompts=True)
    while True:
        now = clock.monotonic()
        ends_at = wait.ends_at(first, found, held_at, now)
        if ends_at is None:
            return wait.report(first, found, now, ends_at=now)
        if now > ends_at:
            last = await register.look(about, hold_seconds=HOLD_SECONDS)
            if last.is_whole:
                is_same = last.stamp == first.stamp
                with suppress(Unavailable):  # optional: it spares the next change the wait
                    settles = is_same and now - held_at > wait.span
                    await register.keep(first, last, now - held_at, settles=settles)
                return wait.report(first, last, clock.monotonic(), ends_at=now)
            return wait.report(first, last, clock.monotonic(), ends_at=None)
        if now > deadline:
            return wait.report(first, found, now, ends_at=ends_at)
        await asyncio.sleep(pause)
        pause = min(LOOK_GROWTH * pause, LONGEST_LOOK_SECONDS)
        found = await register.look(about, prompts=True)


class _Wait:
    """One wait: the workers that it waits for, and when their leases are over."""

    def __init__(
        self,
        about: Moment,
        lease_seconds: float,
        started: float,
        degraded_periods: Sequence[DegradedPeriod],
        *,
        is_settled: bool,
    ) -> None:
        self.started = started
        self.span = lease_seconds + MARGIN_SECONDS
        self._about = about
        self._degraded_periods = degraded_periods
        self._is_settled = is_settled
        self._ends: dict[str, float] = {}  # by worker: the earliest end that any read has shown

    def lengthen(self, lease_seconds: float) -> None:
        """A worker may have a lease as long as this."""
        self.span = max(self.span, lease_seconds + MARGIN_SECONDS)

    def ends_at(self, first: Fleet, found: Fleet, held_at: float, looked_at: float) -> float | None:
        """When nobody can act on anything older any more; None: now.

        A lease that counts was granted before all servers had the change. A worker that was silent already
        before this read has an older one.
        """
        is_complete = (
            found.is_known
            and found.is_ours
            and found.stamp == first.stamp
            and (self._is_settled or found.settled == found.stamp)
        )
        ends: list[float] = []
        for one in found.workers:
            left = self._left(one, found)
            if one.applied < self._about.generation and left > 0:
                latest = min(held_at + self._longest(one), looked_at + left)
                self._ends[one.worker] = min(latest, self._ends.get(one.worker, latest))
                ends.append(self._ends[one.worker])
        if not is_complete:  # there may be workers that are not in this server's register
            ends.append(
                held_at + self.span + max((one.seconds for one in self._degraded_periods), default=0.0)
            )
        return max(ends, default=None)

    def report(self, first: Fleet, last: Fleet, now: float, *, ends_at: float | None) -> BarrierReport:
        """The result. `ends_at`: when it is sure; None: that cannot be said."""
        concerned = [one.worker for one in first.workers if self._left(one, first) > 0]
        acknowledged = {one.worker for one in last.workers if one.applied >= self._about.generation}
        is_sure = ends_at is not None and ends_at <= now
        return BarrierReport(
            generation=self._about.generation,
            workers=len(concerned),
            acknowledged=sum(name in acknowledged for name in concerned),
            milliseconds=round((now - self.started) * 1000, 3),
            is_sure=is_sure,
            sure_in_seconds=None if ends_at is None else max(0.0, ends_at - now),
            held=last.held if ends_at is None else last.servers,
            servers=last.servers,
            why="" if is_sure else _why(last, self._about, is_timed=ends_at is not None),
        )

    def _left(self, one: Registered, found: Fleet) -> float:
        """For how long after a read this worker may still act on something older."""
        silent = one.silent_seconds if one.silent_under == found.stamp else 0.0
        return max(0.0, self._longest(one) - silent)

    def _longest(self, one: Registered) -> float:
        """For how long after its last renewal this worker may act on something older."""
        granted = [each.seconds for each in self._degraded_periods if each.counts_for(one.applied)]
        return self.span + max(granted, default=0.0)


def _why(found: Fleet, about: Moment, *, is_timed: bool) -> str:
    """Why it is not sure, and what would make it sure."""
    if not found.is_known:
        return "the server's facts are not the ones that this node knew: see `cachegate directory show`"
    if not found.is_ours:
        return (
            f"the server that is the primary now does not have generation {about.generation}: it was lost "
            "in a failover; look, then repeat the command"
        )
    if is_timed:
        return "not every worker has acknowledged it, and their leases have not ended yet"
    return (
        f"held by {found.held} of {found.servers} servers: it is in force, and would be lost if one of the "
        "others were promoted before it caught up. Bring that server back and repeat the command; or have "
        "the Sentinels forget it for good (SENTINEL RESET), then `cachegate directory group`"
    )
