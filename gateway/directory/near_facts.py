"""Reading through the near cache: from memory, or from the store once per name however many ask.

A miss makes a flight that belongs to no request: whoever cancels leaves the others waiting for it,
and its reply is put away in any case. A name whose flight was overtaken by a change is no longer
joined: who asks after a change has been applied never gets what was read before it.

The connections that read are others than the one that tells of changes, and may lead to another server: one
that was the primary before a failover, or that was stopped meanwhile. So what is read is believed only at a
moment that the feed has told of, by counter and mark, and that is not older than what was applied here when
the read began. Else the connections are made anew, where the feed is.

`verify_fresh` and `holds` are the two looks at the lease: the first before any work is done for a
caller, the second immediately before the first byte. Both are synchronous.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Unavailable
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.lease import Lease
    from gateway.directory.near_cache import NearCache
    from gateway.model.facts import Leaf, Stamp
    from gateway.model.ports import MonotonicClock
    from gateway.model.stores import FactStore

RECONNECT_PATIENCE_SECONDS = 0.5  # a feed that is made anew takes milliseconds; a request can wait that long
ECHO_SECONDS = 0.25  # how far a read may be ahead of the feed: both come from one server, on two connections
REMEMBERED_MARKS = 4096  # generations that a read can be behind the feed: it ends within a second
READ_ATTEMPTS = 3  # of these the first two may use connections from before the feed moved

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
        self._store = store
        self._clock = clock
        self._flights: dict[bytes, asyncio.Task[dict[bytes, Leaf]]] = {}
        self._fed = asyncio.Event()
        self._is_history_known = True
        self._marks: OrderedDict[int, str] = OrderedDict()  # of the generations that the feed told of
        self._history = ""
        self._echoes: list[tuple[int, asyncio.Future[None]]] = []  # reads that are ahead of the feed

    @property
    def moment(self) -> Moment:
        """The moment up to which all changes are applied here."""
        applied = self.lease.applied
        return Moment(history=self._history, generation=applied, mark=self._marks.get(applied, ""))

    def is_fresh(self, degraded_seconds: float = 0.0) -> bool:
        """Whether memory may be trusted now, the lease's degraded time included where one is granted."""
        return self._clock.monotonic() < self.lease.until + degraded_seconds

    def is_leased(self) -> bool:
        """Whether the lease itself holds."""
        return self.lease.is_held(self._clock.monotonic())

    def verify_fresh(self, degraded_seconds: float) -> None:
        """Raises `Unavailable` when nothing may be answered from memory now."""
        if not self.is_fresh(degraded_seconds):
            why = "the lease on the facts ran out" if self._is_history_known else UNKNOWN_HISTORY
            raise Unavailable("redis", why, Reason.NO_LEASE)

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

    def connected(self, moment: Moment) -> None:
        """A new feed is up; changes are pushed from this moment on. What was known before is not.

        It may lead to another server than the connections that are open: they are not used any more.
        """
        self.cache.flush()
        self._flights.clear()
        self._store.move()
        self._history = moment.history
        self._marks.clear()
        self._marks[moment.generation] = moment.mark
        self.lease.restart(moment.generation)
        self._is_history_known = True
        self._fed.set()
        self._wake()

    def disconnected(self, *, is_history_known: bool = True) -> None:
        """The feed is gone. What is remembered stays until the lease ends; nothing new is put to it."""
        self._is_history_known = is_history_known
        self._fed.clear()

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """Changes up to the last of these generations have been told, and `changed` was called for them."""
        for generation, mark in steps:
            self._marks[generation] = mark
            self.lease.apply(generation)
        while len(self._marks) > REMEMBERED_MARKS:
            self._marks.popitem(last=False)
        self._wake()

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
        me = asyncio.current_task()
        try:
            return await self._read_current(names)
        finally:
            for name in names:
                if self._flights.get(name) is me:
                    del self._flights[name]

    async def _read_current(self, names: Sequence[bytes]) -> dict[bytes, Leaf]:
        """Read and remember; where another server answered, again on connections that are made anew."""
        for attempt in range(READ_ATTEMPTS):
            flight = self.cache.depart(names)
            departed = self.lease.applied
            try:
                moment, values = await self._store.read(names)
                if moment.generation > self.lease.applied:
                    await self._await_echo(moment.generation, ECHO_SECONDS / (1 + 4 * attempt))
            except BaseException:
                self.cache.crash(flight)
                raise
            if not self._fed.is_set():
                flight.spoiled.update(names)  # read while nobody would have told us of a change
            elif not self.cache.is_overtaken(flight) and not self._is_ours(moment, departed):
                self.cache.crash(flight)
                self._store.move()
                continue
            return self.cache.land(flight, dict(zip(names, values, strict=True)))
        why = "another server answers than the one whose changes are followed: a failover is going on"
        raise Unavailable("redis", why, Reason.NO_LEASE)

    def _is_ours(self, moment: Moment, departed: int) -> bool:
        """Whether a moment is one of the history that the feed tells of, and not older than it was then."""
        is_told = departed <= moment.generation <= self.lease.applied
        if not (is_told and self._marks.get(moment.generation) == moment.mark):
            return False
        if not self._history:  # the server was empty when the feed began: its first change made the history
            self._history = moment.history
        return moment.history == self._history

    async def _await_echo(self, generation: int, seconds: float) -> None:
        """Wait until the feed has told of this generation, but not for long."""
        heard: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (generation, heard)
        self._echoes.append(entry)
        try:
            await asyncio.wait({heard}, timeout=seconds)
        finally:
            if entry in self._echoes:
                self._echoes.remove(entry)

    def _wake(self) -> None:
        """Let those go on who wait for what has been told."""
        if not self._echoes:
            return
        applied = self.lease.applied
        for generation, heard in self._echoes:
            if generation <= applied and not heard.done():
                heard.set_result(None)
        self._echoes = [one for one in self._echoes if not one[1].done()]

    async def _await_feed(self) -> None:
        if self._fed.is_set():
            return
        try:
            async with asyncio.timeout(RECONNECT_PATIENCE_SECONDS):
                await self._fed.wait()
        except TimeoutError:
            why = "changes of the facts cannot be followed" if self._is_history_known else UNKNOWN_HISTORY
            raise Unavailable("redis", why, Reason.NO_LEASE) from None


def _retrieve(task: asyncio.Task[dict[bytes, Leaf]]) -> None:
    """A flight whose passengers all left may fail without anybody hearing of it."""
    if not task.cancelled():
        task.exception()
