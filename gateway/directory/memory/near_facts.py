"""Reads facts through the near cache, with one store read per missing name however many callers ask.

A miss starts a read that belongs to no request (singleflight): a cancelled caller does not affect the others,
and the reply is cached in any case. A read that was overtaken by a change is no longer joined: a caller that
asks after a change was applied never gets what was read before it.

Reads use other connections than the feed, and these may lead to another server: one that was the primary
before a failover, or that was stopped meanwhile. So a reply counts only if its moment was reported by the
feed, with the same counter and mark, and is not older than the generation applied here when the read began.
Otherwise the connections are replaced by new ones to the feed's server.

The lease is checked twice: by `verify_fresh` before any work for a caller, and by `holds` immediately before
the first byte. Both are synchronous.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Unavailable
from gateway.model.singleflight import Singleflight
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.memory.lease import Lease
    from gateway.directory.memory.near_cache import NearCache
    from gateway.model.clocks import MonotonicClock
    from gateway.model.stamps import Leaf, Stamp
    from gateway.model.stores import FactStore

# A feed reconnects within milliseconds, and a request can wait this long.
RECONNECT_PATIENCE_SECONDS = 0.5
# How far a read may be ahead of the feed: both come from one server, on two connections.
ECHO_SECONDS = 0.25
REMEMBERED_MARKS = 4096  # generations that a read can be behind the feed: a read ends within a second
READ_ATTEMPTS = 3  # the first two may use connections from before the feed reconnected

UNKNOWN_HISTORY = (
    "the server's facts are not the ones that this node knew, or an older state of them: "
    "see `cachegate directory show`; if that is meant, run `cachegate directory accept` on each node"
)


class NearFacts:
    """The facts as one worker reads them (`FactSource`)."""

    def __init__(self, store: FactStore, cache: NearCache, lease: Lease, clock: MonotonicClock) -> None:
        self.cache = cache
        self.lease = lease
        self.stale_refusals = 0
        self.epoch = 0  # raised whenever a record may have changed
        self._store = store
        self._clock = clock
        self._reads: Singleflight[bytes, dict[bytes, Leaf]] = Singleflight(
            lambda name, read: read[name].is_current
        )
        self._feed_is_up = asyncio.Event()
        self._is_history_known = True
        self._marks: OrderedDict[int, str] = OrderedDict()  # of the generations that the feed reported
        self._history = ""
        self._reads_ahead: list[tuple[int, asyncio.Future[None]]] = []  # reads that are ahead of the feed

    @property
    def moment(self) -> Moment:
        """The moment up to which all changes are applied here."""
        applied = self.lease.applied
        return Moment(history=self._history, generation=applied, mark=self._marks.get(applied, ""))

    def is_fresh(self, degraded_seconds: float = 0.0) -> bool:
        """Whether memory may be trusted now, by the lease or within the granted degraded period after it."""
        return self._clock.monotonic() < self.lease.until + degraded_seconds

    def is_leased(self) -> bool:
        """Whether the lease itself is held."""
        return self.lease.is_held(self._clock.monotonic())

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raise `Unavailable` if nothing may be answered from memory now."""
        if not self._clock.monotonic() < self.lease.until + degraded_seconds:  # as `is_fresh`, without a call
            why = "the lease on the facts ran out" if self._is_history_known else UNKNOWN_HISTORY
            raise Unavailable("redis", why, Reason.NO_LEASE)

    def holds(self, stamp: Stamp, degraded_seconds: float) -> bool:
        """The last check: the lease is held and no fact that the answer depends on has changed."""
        self.verify_fresh(degraded_seconds)
        for leaf in stamp.leaves:  # as `stamp.is_current`, without a call: this is before every first byte
            if not leaf.is_current:
                self.stale_refusals += 1
                return False
        return True

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """Return a leaf for each name, in order, from memory where it is cached."""
        generation = self.lease.applied
        found = [self.cache.find(name) for name in names]
        missing = [name for name, leaf in zip(names, found, strict=True) if leaf is None]
        fetched = await self._fetch(missing) if missing else {}
        return generation, [leaf or fetched[name] for name, leaf in zip(names, found, strict=True)]

    async def read_afresh(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """Read from the store, whatever is cached, without joining another caller's read.

        The cost for a caller must not depend on whether others asked for the same before (I3).
        """
        generation = self.lease.applied
        await self._await_feed()
        read = await self._read_current(names)
        return generation, [read[name] for name in names]

    def find(self, names: Sequence[bytes]) -> list[Leaf] | None:
        """Return the leaves if all are cached, without waiting; otherwise None."""
        found = [self.cache.find(name) for name in names]
        return None if None in found else found  # type: ignore[return-value] # none is missing

    def connected(self, moment: Moment) -> None:
        """A new feed pushes changes from this moment on. Everything cached before is invalid.

        The feed may have connected to another server than the open connections, so these are replaced.
        """
        self.epoch += 1
        self.cache.flush()
        self._reads.forget()
        self._store.move()
        self._history = moment.history
        self._marks.clear()
        self._marks[moment.generation] = moment.mark
        self.lease.restart(moment.generation)
        self._is_history_known = True
        self._feed_is_up.set()
        self._wake()

    def disconnected(self, *, is_history_known: bool = True) -> None:
        """The feed is gone. Cached records stay until the lease ends; nothing new is cached."""
        self._is_history_known = is_history_known
        self._feed_is_up.clear()

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """Changes up to the last of these generations were reported, and `changed` was called for them."""
        for generation, mark in steps:
            self._marks[generation] = mark
            self.lease.apply(generation)
        while len(self._marks) > REMEMBERED_MARKS:
            self._marks.popitem(last=False)
        self._wake()

    def changed(self, names: Iterable[bytes] | None) -> None:
        """These records changed; None: any of them may have."""
        self.epoch += 1
        if names is None:
            self.cache.flush()
            self._reads.forget()
            return
        names = tuple(names)
        self.cache.invalidate(names)
        self._reads.forget(names)

    async def _fetch(self, names: list[bytes]) -> dict[bytes, Leaf]:
        await self._await_feed()
        # Each name from its own read: an older read that is joined for another name may have read this one
        # before it changed.
        reads = await self._reads.run_many(names, self._read_current)
        return {name: read[name] for name, read in reads.items()}

    async def _read_current(self, names: Sequence[bytes]) -> dict[bytes, Leaf]:
        """Read and cache; if another server answered, repeat on new connections."""
        for attempt in range(READ_ATTEMPTS):
            pending = self.cache.begin_read(names)
            applied_before = self.lease.applied
            try:
                moment, values = await self._store.read(names)
                if moment.generation > self.lease.applied:
                    await self._await_generation(moment.generation, ECHO_SECONDS / (1 + 4 * attempt))
            except BaseException:
                self.cache.abort_read(pending)
                raise
            if not self._feed_is_up.is_set():
                pending.overtaken.update(names)  # the feed was down: a change would not have been reported
            elif not self.cache.is_overtaken(pending) and not self._is_ours(moment, applied_before):
                self.cache.abort_read(pending)
                self._store.move()
                continue
            return self.cache.finish_read(pending, dict(zip(names, values, strict=True)))
        why = "another server answers than the one whose changes are followed: a failover is going on"
        raise Unavailable("redis", why, Reason.NO_LEASE)

    def _is_ours(self, moment: Moment, applied_before: int) -> bool:
        """Whether the feed reported this moment, and it is not older than the generation `applied_before`."""
        is_reported = applied_before <= moment.generation <= self.lease.applied
        if not (is_reported and self._marks.get(moment.generation) == moment.mark):
            return False
        if not self._history:  # the server was empty when the feed began; its first change made the history
            self._history = moment.history
        return moment.history == self._history

    async def _await_generation(self, generation: int, seconds: float) -> None:
        """Wait until the feed has reported this generation, for a limited time."""
        reported: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (generation, reported)
        self._reads_ahead.append(entry)
        try:
            await asyncio.wait({reported}, timeout=seconds)
        finally:
            if entry in self._reads_ahead:
                self._reads_ahead.remove(entry)

    def _wake(self) -> None:
        """Wake reads that wait for generations reported by now."""
        if not self._reads_ahead:
            return
        applied = self.lease.applied
        for generation, reported in self._reads_ahead:
            if generation <= applied and not reported.done():
                reported.set_result(None)
        self._reads_ahead = [one for one in self._reads_ahead if not one[1].done()]

    async def _await_feed(self) -> None:
        if self._feed_is_up.is_set():
            return
        try:
            async with asyncio.timeout(RECONNECT_PATIENCE_SECONDS):
                await self._feed_is_up.wait()
        except TimeoutError:
            why = "changes of the facts cannot be followed" if self._is_history_known else UNKNOWN_HISTORY
            raise Unavailable("redis", why, Reason.NO_LEASE) from None
