"""The canary: one worker of the fleet keeps changing a fact of no consequence and measures the barrier.

What it measures is what a revocation would take at this moment, with these workers under this load.
Whoever holds the canary's lock in Redis does it; when that worker ends, another takes over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.barrier import await_workers
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.redis_store import RedisStore
    from gateway.model.ports import MonotonicClock
    from gateway.model.stores import Batch, FactSnapshot

CANARY = b"{cachegate}:f:canary"
LOCK = b"{cachegate}:canary"


class Canary:
    """One worker's part in it."""

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
        self._is_settled = is_settled  # the embedded server: `barrier.py` says what that spares

    async def sing(self) -> None:
        """For ever: if the lock is ours, change the fact and wait for the fleet."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if await self._store.hold(LOCK, self._worker, seconds=3 * self._seconds + 2):
                    self._on_lag(await self._measure())
                else:
                    self._on_lag(0.0)  # somebody else measures; a value that nobody renews would mislead
            except Unavailable as failure:
                self._on_failure(failure)

    async def _measure(self) -> float:
        async def plan(_snapshot: FactSnapshot, batch: Batch) -> None:
            batch.facts[CANARY] = self._worker.encode()

        moment = await self._store.transact(plan)
        report = await await_workers(
            self._store,
            moment,
            lease_seconds=self._lease_seconds,
            patience_seconds=self._lease_seconds * 2,
            clock=self._clock,
            is_settled=self._is_settled,
        )
        return report.milliseconds / 1000
