"""The barrier: after a change, wait until no worker can start anything on what was true before it (I6).

First every server of the group must have the change, since any of them may be promoted next. What less than
all have is not called sure: a planned failover can take it back (`held by 2 of 3`).

Then every worker must be past it. A worker is when it has acknowledged a generation that is not older; it
does so within milliseconds of hearing of it. While the server has been the same for longer than a lease (its
stamp is the settled one), all workers with a lease are in its register, and a look at it suffices. Else, or
when one does not acknowledge, leases are waited out: whoever has one got it before every server had the
change, and so it ends a lease's length after that, whatever became of the worker. Where a tenant may be
served on what was last known, that time comes on top; and a worker that has not applied the change by which
the time was shortened goes by the former one. After such a wait a last look finds out whether all servers
still have the change: one may have been restored from a copy meanwhile.

All times are the waiter's own, by a clock that nobody can set. The margin is for clocks that do not run at
the same speed. How long a lease is, workers write beside the register: whoever waits may have been started
with a shorter setting than theirs, and the longer of the two counts.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.allowances import Allowance
    from gateway.model.ports import MonotonicClock
    from gateway.model.stores import Moment

MARGIN_SECONDS = 0.05  # a lease of 1 s would need clocks that differ by 5 % to outlast it
FIRST_LOOK_SECONDS = 0.0005
LONGEST_LOOK_SECONDS = 0.01
HOLD_SECONDS = 0.3  # one wait for the replicas; it is repeated while there is patience
HOLD_PAUSE_SECONDS = 0.05


class RegisteredWorker(Protocol):
    """One entry of the register."""

    @property
    def worker(self) -> str:
        """Its id."""

    @property
    def applied(self) -> int:
        """The generation it has acknowledged."""

    @property
    def silent_seconds(self) -> float:
        """For how long, at least, it has not renewed, as others saw it."""

    @property
    def silent_under(self) -> str:
        """The stamp of the server under which that was seen."""


class WorkerFleet(Protocol):
    """What one look at a server found."""

    @property
    def is_known(self) -> bool:
        """Whether its history is the one that this node knows."""

    @property
    def is_ours(self) -> bool:
        """Whether the change that was asked about is in its past."""

    @property
    def is_whole(self) -> bool:
        """Whether both hold, and every server of the group has the write of this look."""

    @property
    def servers(self) -> int:
        """How many have to."""

    @property
    def held(self) -> int:
        """How many do."""

    @property
    def stamp(self) -> str:
        """What changes whenever the server may have been another one."""

    @property
    def settled(self) -> str:
        """The last stamp that was seen unchanged for longer than a lease."""

    @property
    def lease_seconds(self) -> float:
        """The longest lease of any worker that was ever registered."""

    @property
    def workers(self) -> Sequence[RegisteredWorker]:
        """The register."""


F = TypeVar("F", bound=WorkerFleet)


class Register(Protocol[F]):
    """Where workers are registered."""

    async def look(self, about: Moment, *, hold_seconds: float | None = None) -> F:
        """Look at it; with `hold_seconds` after a write of its own that the replicas are waited for with."""

    async def keep(self, first: F, last: F, seconds: float, *, settles: bool) -> None:
        """Write down what two looks have shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierReport:
    """How a change became true everywhere; or why, and until when, it may not be."""

    generation: int
    workers: int  # that had to know; none and not sure: they could not be asked
    acknowledged: int  # of them, that said so; the others lost their lease
    milliseconds: float
    is_sure: bool
    sure_in_seconds: float | None = 0.0  # from the end of the wait on, when it is not sure yet; None: unknown
    held: int = 1  # servers that have the change
    servers: int = 1  # that must have it
    why: str = ""  # it is not sure


async def await_workers(
    register: Register[F],
    about: Moment,
    *,
    lease_seconds: float,
    patience_seconds: float,
    clock: MonotonicClock,
    allowances: Sequence[Allowance] = (),
    is_settled: bool = False,
) -> BarrierReport:
    """Wait until every worker has acknowledged this moment, or cannot act on anything older any more.

    `is_settled`: the server has one place and loses nothing that it acknowledged, so that its register is
    whole whenever it was started (the embedded one).
    """
    wait = _Wait(about, lease_seconds, clock.monotonic(), allowances, is_settled=is_settled)
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
        found = await register.look(about)
    while True:
        now = clock.monotonic()
        ends_at = wait.ends_at(first, found, held_at, now)
        if ends_at is None:
            return wait.report(first, found, now, ends_at=now)
        if now > ends_at:
            last = await register.look(about, hold_seconds=HOLD_SECONDS)
            if last.is_whole:
                is_same = last.stamp == first.stamp
                with suppress(Unavailable):  # it spares the next change the wait
                    settles = is_same and now - held_at > wait.span
                    await register.keep(first, last, now - held_at, settles=settles)
                return wait.report(first, last, clock.monotonic(), ends_at=now)
            return wait.report(first, last, clock.monotonic(), ends_at=None)
        if now > deadline:
            return wait.report(first, found, now, ends_at=ends_at)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        found = await register.look(about)


class _Wait:
    """One wait: whom it is for, and when they are over."""

    def __init__(
        self,
        about: Moment,
        lease_seconds: float,
        started: float,
        allowances: Sequence[Allowance],
        *,
        is_settled: bool,
    ) -> None:
        self.started = started
        self.span = lease_seconds + MARGIN_SECONDS
        self._about = about
        self._allowances = allowances
        self._is_settled = is_settled
        self._ends: dict[str, float] = {}  # by worker: the earliest that any look came to

    def lengthen(self, lease_seconds: float) -> None:
        """A worker may have a lease as long as this."""
        self.span = max(self.span, lease_seconds + MARGIN_SECONDS)

    def ends_at(
        self, first: WorkerFleet, found: WorkerFleet, held_at: float, looked_at: float
    ) -> float | None:
        """When nobody can act on anything older any more; None: now.

        A lease that counts is from before all servers had the change. A worker that was silent before this
        look has an older one.
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
        if not is_complete:  # there may be workers that are not in this register
            ends.append(held_at + self.span + max((one.seconds for one in self._allowances), default=0.0))
        return max(ends, default=None)

    def report(
        self, first: WorkerFleet, last: WorkerFleet, now: float, *, ends_at: float | None
    ) -> BarrierReport:
        """What it came to. `ends_at`: when it is sure; None: that cannot be said."""
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

    def _left(self, one: RegisteredWorker, found: WorkerFleet) -> float:
        """For how long after a look this worker may still act on something older."""
        silent = one.silent_seconds if one.silent_under == found.stamp else 0.0
        return max(0.0, self._longest(one) - silent)

    def _longest(self, one: RegisteredWorker) -> float:
        """For how long after its last renewal this worker may act on something older."""
        granted = [each.seconds for each in self._allowances if each.counts_for(one.applied)]
        return self.span + max(granted, default=0.0)


def _why(found: WorkerFleet, about: Moment, *, is_timed: bool) -> str:
    """Why it is not sure, and what would make it so."""
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
