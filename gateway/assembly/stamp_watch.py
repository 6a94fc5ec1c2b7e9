"""The stamp watch: one worker of the fleet observes server and register, so that changes need not wait.

While a server has had the same stamp for longer than a lease, all valid leases are in its register, and a
change is sure as soon as all of them have acknowledged it. The watcher writes down that it has observed this:
the stamp is settled. It also writes down how long the entry of a worker has not changed, so that a
worker that ended without notice does not delay every later change. Both are timed on the watcher's own clock.

The size of the group grows here too, where no operator has set it: a replica may be attached at any time, and
a failover may follow at once. With the smaller size an old primary would go on giving leases alone.

The worker that holds the lock in Redis does it; when that worker ends, another takes over and starts anew.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.adapters.redis_fleet import with_silence
from gateway.barrier import MARGIN_SECONDS
from gateway.model.errors import Unavailable
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.adapters.redis_fleet import Fleet
    from gateway.adapters.redis_store import RedisStore
    from gateway.model.clocks import MonotonicClock

LOCK = b"{cachegate}:settling"
EVERY_SECONDS = 0.5
LOCK_SECONDS = 3.0


class StampWatch:
    """The stamp watch of one worker."""

    def __init__(
        self,
        *,
        store: RedisStore,
        worker: str,
        lease_seconds: float,
        clock: MonotonicClock,
        grow: Callable[[int], Awaitable[object]],
        on_failure: Callable[[Unavailable], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._span = lease_seconds + MARGIN_SECONDS
        self._clock = clock
        self._grow = grow  # notes that the group has so many servers
        self._on_failure = on_failure
        self._last: tuple[Fleet, float] | None = None  # the last read, and when its answer came
        self._has_failed = False
        self._since = 0.0  # when the answer of the first read with the present stamp came

    async def run(self) -> None:
        """Run for ever: while this worker holds the lock, read and write down what that shows."""
        while True:
            try:
                if await self._store.hold(LOCK, self._worker, seconds=LOCK_SECONDS):
                    await self.look()
                else:
                    self._last = None
                self._has_failed = False
            except Unavailable as failure:
                self._last = None
                if not self._has_failed:  # report once, not twice a second while it lasts
                    self._on_failure(failure)
                self._has_failed = True
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Read once, and write down what this and the read before it show."""
        asked_at = self._clock.monotonic()
        found = await self._store.look(Moment())
        answered_at = self._clock.monotonic()
        await self._learn(found)
        if self._last is None or self._last[0].stamp != found.stamp:
            self._last, self._since = (found, answered_at), answered_at
            return
        before, before_at = self._last
        is_settled = found.settled == found.stamp
        span = max(self._span, found.lease_seconds + MARGIN_SECONDS)
        settles = not is_settled and asked_at - self._since > span
        await self._store.keep(before, found, asked_at - before_at, settles=settles)
        self._last = (with_silence(before, found, asked_at - before_at), answered_at)

    async def _learn(self, found: Fleet) -> None:
        """Note a group that has grown."""
        known, seen = found.group, found.attached + 1
        if seen > (1 if known is None else known.servers) and (known is None or not known.is_set):
            await self._grow(seen)
