"""One question at a time: however many requests wait for an answer, one worker of the fleet gets it.

Within a worker, all who ask the same share one flight. Across the fleet, a lock in Redis lets one of the
flights ask; the others wait until the answer is a fact. A lock ends by itself, so that a worker that
dies with one costs its length and no more. A flight belongs to no request: whoever leaves leaves the
others waiting for it, and its answer is written in any case.

Places are few, so that nobody drowns the provider, and shared out, so that nobody shuts others out: half of
them may be about keys that are not known yet, so that strangers with made-up keys leave room for known
customers, and a quarter about one key. What may wait for a place is shared out in the same way. Beyond it,
the answer is at once that nobody can say.

Non-goals: what is asked, and what becomes of the answer (`authority.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

PATIENCE_SECONDS = 4.0  # the client waits for 5
LOCK_SECONDS = 5.0  # outlasts what it guards
PLACES = 32  # questions under way at once, from one worker
PLACES_FOR_STRANGERS = 16  # of these, about keys that are not known yet
PLACES_FOR_ONE_KEY = 8  # and about one that is
MAX_FLIGHTS = 512  # under way or waiting for a place
MAX_FLIGHTS_FOR_STRANGERS = 256  # of these, about keys that are not known yet
MAX_FLIGHTS_FOR_ONE_KEY = 128  # a process that starts with a hundred models waits a second or two
LOOK_SECONDS = 0.02  # how often a flight looks whether somebody else's answer has come; less often each time
LONGEST_LOOK_SECONDS = 0.2


class Locks(Protocol):
    """Locks that the fleet shares and that end by themselves."""

    async def hold(self, lock: bytes, holder: str, *, seconds: float) -> bool:
        """Take or keep a lock; whether it is ours now."""

    async def let_go(self, lock: bytes, holder: str) -> None:
        """Let go of it before it ends."""


class Flights:
    """The questions of one worker."""

    def __init__(self, locks: Locks, *, worker: str) -> None:
        self._locks = locks
        self._worker = worker
        self._serials = count()
        self._flights: dict[bytes, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(PLACES)
        self._places_for_strangers = asyncio.Semaphore(PLACES_FOR_STRANGERS)
        self._places_of_keys: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._flights_of_keys: Counter[str] = Counter()
        self._flights_of_strangers = 0

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, lock: bytes) -> bool:
        """Whether this worker asks this, or waits for another one's answer, already."""
        return lock in self._flights

    async def await_answer(
        self,
        lock: bytes,
        *,
        key_id: str,
        is_stranger: bool,
        ask: Callable[[], Awaitable[None]],
        is_answered: Callable[[], Awaitable[bool]],
    ) -> None:
        """Return once the answer is a fact. Raises what `ask` raises, or `Unavailable` after a while."""
        flight = self._flights.get(lock)
        if flight is None:
            if not self._has_room_for(key_id, is_stranger=is_stranger):
                raise _undecided("too many questions wait to be asked")
            place = self._place_for_stranger() if is_stranger else self._place_for(key_id)
            flight = self._flights[lock] = asyncio.create_task(self._fly(lock, place, ask, is_answered))
            self._flights_of_keys[key_id] += 1
            self._flights_of_strangers += is_stranger
            flight.add_done_callback(partial(self._landed, lock, key_id, is_stranger))
        await asyncio.shield(flight)

    async def close(self) -> None:
        """End what is under way."""
        for flight in tuple(self._flights.values()):
            flight.cancel()
            with suppress(asyncio.CancelledError, Unavailable):
                await flight

    async def _fly(
        self,
        lock: bytes,
        place: AbstractAsyncContextManager[None],
        ask: Callable[[], Awaitable[None]],
        is_answered: Callable[[], Awaitable[bool]],
    ) -> None:
        holder = f"{self._worker}:{next(self._serials)}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), place:
                pause = LOOK_SECONDS
                while not await self._locks.hold(lock, holder, seconds=LOCK_SECONDS):
                    await asyncio.sleep(pause)
                    if await is_answered():
                        return
                    pause = min(1.5 * pause, LONGEST_LOOK_SECONDS)
                try:
                    if not await is_answered():  # by whoever had the lock before us
                        await ask()
                finally:
                    with suppress(Unavailable):  # it ends by itself
                        await self._locks.let_go(lock, holder)
        except TimeoutError as error:
            raise _undecided("no answer came in time") from error

    def _has_room_for(self, key_id: str, *, is_stranger: bool) -> bool:
        if is_stranger and self._flights_of_strangers >= MAX_FLIGHTS_FOR_STRANGERS:
            return False
        of_key = self._flights_of_keys.get(key_id, 0)
        return len(self._flights) < MAX_FLIGHTS and of_key < MAX_FLIGHTS_FOR_ONE_KEY

    def _landed(self, lock: bytes, key_id: str, is_stranger: bool, flight: asyncio.Task[None]) -> None:  # noqa: FBT001 -- a callback
        del self._flights[lock]
        self._flights_of_strangers -= is_stranger
        self._flights_of_keys[key_id] -= 1
        if not self._flights_of_keys[key_id]:
            del self._flights_of_keys[key_id]
        if not flight.cancelled():
            flight.exception()  # one whose passengers all left may fail without anybody hearing of it

    @asynccontextmanager
    async def _place_for_stranger(self) -> AsyncIterator[None]:
        async with self._places_for_strangers, self._places:
            yield

    @asynccontextmanager
    async def _place_for(self, key_id: str) -> AsyncIterator[None]:
        places = self._places_of_keys.setdefault(key_id, asyncio.Semaphore(PLACES_FOR_ONE_KEY))
        async with places, self._places:
            yield


def _undecided(why: str) -> Unavailable:
    return Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED)
