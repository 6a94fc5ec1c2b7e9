"""The barrier: after a change, wait until no worker can start anything on what was true before it (I6).

A worker is past the change when it has acknowledged a generation that is not older; it does so
within milliseconds of hearing of it. One that does not is waited out: it may start something only
under a lease, a lease counts from before the change was committed at the latest, and so it has ended
a lease's length after the commit, whatever became of the worker. Where a tenant may be served on
what was last known, that time comes on top; and a worker that has not applied the change by which
the time was shortened goes by the former one.

All times are the server's. The margin is for clocks that do not run at the same speed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.directory.allowances import Allowance
    from gateway.model.ports import MonotonicClock

MARGIN_SECONDS = 0.05  # a lease of 1 s would need clocks that differ by 5 % to outlast it
FIRST_LOOK_SECONDS = 0.0005
LONGEST_LOOK_SECONDS = 0.01
FORGET_SECONDS = 7200.0  # a worker that has not renewed for so long is gone: its entry is only in the way


class RegisteredWorker(Protocol):
    """One entry of the register."""

    @property
    def worker(self) -> str:
        """Its id."""

    @property
    def applied(self) -> int:
        """The generation it has acknowledged."""

    @property
    def renewed_at(self) -> float:
        """When it renewed last, by the server's clock."""


class WorkerFleet(Protocol):
    """The register, and the server's time when it was read."""

    @property
    def now(self) -> float:
        """The server's time."""

    @property
    def workers(self) -> tuple[RegisteredWorker, ...]:
        """Its entries."""


class Register(Protocol):
    """Where workers are registered."""

    async def fleet(self) -> WorkerFleet:
        """Read it."""

    async def drop_workers(self, workers: list[str]) -> None:
        """Take these off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierReport:
    """How a change became true everywhere; or until when it may not be."""

    generation: int
    workers: int  # that had to know; none and not sure: they could not be asked
    acknowledged: int  # of them, that said so; the others lost their lease
    milliseconds: float
    is_sure: bool
    sure_in_seconds: float = 0.0  # from the end of the wait on, when it is not sure yet


async def await_workers(
    register: Register,
    generation: int,
    *,
    lease_seconds: float,
    patience_seconds: float,
    clock: MonotonicClock,
    allowances: Sequence[Allowance] = (),
) -> BarrierReport:
    """Wait until every worker has acknowledged `generation`, or cannot act on anything older any more."""

    def ends(worker: RegisteredWorker, since: float) -> float:
        """When this worker can serve nothing any more that it was sure of at that time."""
        allowed = max((one.seconds for one in allowances if one.counts_for(worker.applied)), default=0.0)
        return since + lease_seconds + MARGIN_SECONDS + allowed

    started = clock.monotonic()
    fleet = await register.fleet()
    committed_at = fleet.now  # at the latest: the commit came before this look
    await register.drop_workers(
        [one.worker for one in fleet.workers if ends(one, one.renewed_at) + FORGET_SECONDS < fleet.now]
    )
    concerned = [one.worker for one in fleet.workers if ends(one, one.renewed_at) >= fleet.now]
    pause = FIRST_LOOK_SECONDS
    while True:
        known = {one.worker: one for one in fleet.workers}
        acknowledged = [name for name in concerned if name in known and known[name].applied >= generation]
        late = [
            ends(known[name], min(known[name].renewed_at, committed_at))
            for name in concerned
            if name in known and known[name].applied < generation
        ]
        wait = max(late, default=0.0) - fleet.now
        if wait < 0 or clock.monotonic() - started > patience_seconds:
            return BarrierReport(
                generation=generation,
                workers=len(concerned),
                acknowledged=len(acknowledged),
                milliseconds=round((clock.monotonic() - started) * 1000, 3),
                is_sure=wait < 0,
                sure_in_seconds=max(0.0, wait),
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        fleet = await register.fleet()
