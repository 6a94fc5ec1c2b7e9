"""The canary: one worker of the fleet keeps changing an unused fact, and measures how long the barrier takes.

The measurement is what a revocation would take now, with these workers under this load. The worker that holds
the canary's lock in Redis does it; when that worker ends, another takes over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.barrier import await_workers
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.redis_store import RedisStore
    from gateway.model.clocks import MonotonicClock
    from gateway.model.stores import Batch, FactSnapshot

CANARY = b"{cachegate}:f:canary"
LOCK = b"{cachegate}:canary"


class Canary:
    """The canary task of one worker."""

    def __init__(
        self,
        *,
        store: RedisStore,
        worker: str,
        seconds: float,
        lease_seconds: float,
        clock: MonotonicClock,
        on_lag: Callable[[float], None],
        on_failure: Callable[[Unavailable], None],
        is_settled: bool = False,
    ) -> None:
        self._store = store
        self._worker = worker
        self._seconds = seconds
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._on_lag = on_lag
        self._on_failure = on_failure
        self._is_settled = is_settled  # the embedded server: `await_workers` explains what that saves

    async def measure(self) -> None:
        """Run for ever: while this worker holds the lock, change the fact and wait at the barrier."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if await self._store.hold(LOCK, self._worker, seconds=3 * self._seconds + 2):
                    self._on_lag(await self._measure())
                else:
                    self._on_lag(0.0)  # another worker measures; an old value would mislead
            except Unavailable as failure:
                self._on_failure(failure)

    async def _measure(self) -> float:
        async def plan(_snapshot: FactSnapshot, batch: Batch) -> None:
            batch.facts[CANARY] = self._worker.encode()

        _, moment = await self._store.transact(plan)
        report = await await_workers(
            self._store,
            moment,
            lease_seconds=self._lease_seconds,
            patience_seconds=self._lease_seconds * 2,
            clock=self._clock,
            is_settled=self._is_settled,
        )
        return report.milliseconds / 1000
