"""Reading through the near cache: from memory, or from the store once per name however many ask.

A miss makes a flight that belongs to no request: whoever cancels leaves the others waiting for it,
and its reply is put away in any case. A name whose flight was overtaken by a change is no longer
joined: who asks after a change has been applied never gets what was read before it.

`verify_fresh` and `holds` are the two looks at the lease: the first before any work is done for a
caller, the second immediately before the first byte. Both are synchronous.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.lease import Lease
    from gateway.directory.near_cache import NearCache
    from gateway.model.facts import Leaf, Stamp
    from gateway.model.ports import MonotonicClock
    from gateway.model.stores import FactStore

RECONNECT_PATIENCE_SECONDS = 0.5  # a feed that is made anew takes milliseconds; a request can wait that long


class NearFacts:
    """The facts as one worker reads them (`FactSource`)."""

    def __init__(self, store: FactStore, cache: NearCache, lease: Lease, clock: MonotonicClock) -> None:
        self.cache = cache
        self.lease = lease
        self.stale_refusals = 0
        self._store = store
        self._clock = clock
        self._flights: dict[bytes, asyncio.Task[dict[bytes, Leaf]]] = {}
        self._fed = asyncio.Event()

    def is_fresh(self, degraded_seconds: float = 0.0) -> bool:
        """Whether memory may be trusted now, the lease's degraded time included where one is granted."""
        return self._clock.monotonic() < self.lease.until + degraded_seconds

    def is_leased(self) -> bool:
        """Whether the lease itself holds."""
        return self.lease.is_held(self._clock.monotonic())

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable` when nothing may be answered from memory now."""
        if not self.is_fresh(degraded_seconds):
            raise Unavailable("redis", "the lease on the facts ran out", Reason.NO_LEASE)

    def holds(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check: the lease holds and nothing that the answer stands on has moved."""
        self.verify_fresh(degraded_seconds)
        if stamp.is_current:
            return True
        self.stale_refusals += 1
        return False

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """A leaf for each name, in order, from memory where it is remembered."""
        generation = self.lease.applied
        found = [self.cache.find(name) for name in names]
        missing = [name for name, leaf in zip(names, found, strict=True) if leaf is None]
        fetched = await self._fetch(missing) if missing else {}
        return generation, [leaf or fetched[name] for name, leaf in zip(names, found, strict=True)]

    async def read_afresh(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """The same from the store, whatever is remembered, in a flight of the caller's own.

        What a caller may not see must cost it the same whether or not others asked for it before (I3).
        """
        generation = self.lease.applied
        await self._await_feed()
        landed = await asyncio.shield(self._take_off(names))
        return generation, [landed[name] for name in names]

    def find(self, names: Sequence[bytes]) -> list[Leaf] | None:
        """The leaves, if every one is remembered: the way that waits for nothing."""
        found = [self.cache.find(name) for name in names]
        return None if None in found else found  # type: ignore[return-value] # none is missing

    def connected(self, generation: int) -> None:
        """A new feed is up; changes are pushed from this generation on. What was known before is not."""
        self.cache.flush()
        self._flights.clear()
        self.lease.restart(generation)
        self._fed.set()

    def disconnected(self) -> None:
        """The feed is gone. What is remembered stays until the lease ends; nothing new is put to it."""
        self._fed.clear()

    def changed(self, names: Iterable[bytes] | None) -> None:
        """These records changed; None: any of them may have."""
        if names is None:
            self.cache.flush()
            self._flights.clear()
            return
        names = tuple(names)
        self.cache.invalidate(names)
        for name in names:
            self._flights.pop(name, None)

    async def _fetch(self, names: list[bytes]) -> dict[bytes, Leaf]:
        await self._await_feed()
        new = [name for name in dict.fromkeys(names) if name not in self._flights]
        if new:
            self._flights.update(dict.fromkeys(new, self._take_off(new)))
        # Each name from its own flight: an older one that another name is joined in may have read this
        # one before it changed.
        flights = {name: self._flights[name] for name in names}
        return {name: (await asyncio.shield(flight))[name] for name, flight in flights.items()}

    def _take_off(self, names: Sequence[bytes]) -> asyncio.Task[dict[bytes, Leaf]]:
        task = asyncio.create_task(self._fly(names))
        task.add_done_callback(_retrieve)
        return task

    async def _fly(self, names: Sequence[bytes]) -> dict[bytes, Leaf]:
        flight = self.cache.depart(names)
        me = asyncio.current_task()
        try:
            _, values = await self._store.read(names)
        except BaseException:
            self.cache.crash(flight)
            raise
        finally:
            for name in names:
                if self._flights.get(name) is me:
                    del self._flights[name]
        if not self._fed.is_set():
            flight.spoiled.update(names)  # read while nobody would have told us of a change
        return self.cache.land(flight, dict(zip(names, values, strict=True)))

    async def _await_feed(self) -> None:
        if self._fed.is_set():
            return
        try:
            async with asyncio.timeout(RECONNECT_PATIENCE_SECONDS):
                await self._fed.wait()
        except TimeoutError:
            raise Unavailable("redis", "changes of the facts cannot be followed", Reason.NO_LEASE) from None


def _retrieve(task: asyncio.Task[dict[bytes, Leaf]]) -> None:
    """A flight whose passengers all left may fail without anybody hearing of it."""
    if not task.cancelled():
        task.exception()
