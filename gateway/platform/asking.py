"""Singleflight across the fleet: however many requests wait for an answer, one worker asks for it.

Within a worker, all requests for the same answer share one task. Across the fleet, a lock in Redis lets one
of these tasks ask; the others wait until the answer is a fact. The lock expires by itself, so a worker that
dies with it delays the others by its length and no more. A task belongs to no request: a request that is
cancelled leaves the others waiting for it, and the answer is written in any case.

The number of tasks under way is bounded, so that the provider is not overloaded, and shared out, so that no
caller takes all: at most half may be about keys that are not known yet, so that callers with made-up keys
leave room for known customers, and at most a quarter about one key. The queue is bounded and shared out in
the same way. Beyond it the answer is immediately undecided.

Non-goals: what is asked, and what becomes of the answer (`authority.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from gateway.model.errors import Reason, Unavailable
from gateway.model.singleflight import Singleflight, checked_by_callers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from gateway.adapters.redis_store import RedisStore

PATIENCE_SECONDS = 4.0  # the client waits for 5
LOCK_SECONDS = 5.0  # longer than a task may hold it
PLACES = 32  # requests under way at once, from one worker
PLACES_FOR_UNKNOWN_KEYS = 16  # of these, about keys that are not known yet
PLACES_FOR_ONE_KEY = 8  # of these, about one known key
MAX_SHARED_QUESTIONS = 512  # under way or queued
MAX_SHARED_QUESTIONS_FOR_UNKNOWN_KEYS = 256  # of these, about keys that are not known yet
MAX_SHARED_QUESTIONS_FOR_ONE_KEY = 128  # a process that starts with a hundred models waits a second or two
LOOK_SECONDS = 0.02  # how often a task checks whether another worker's answer has come; less often each time
LONGEST_LOOK_SECONDS = 0.2


class SharedQuestions:
    """The tasks of one worker, one for each answer that is waited for."""

    def __init__(self, locks: RedisStore, *, worker: str) -> None:
        self._locks = locks
        self._worker = worker
        self._serials = count()
        # The answer is a fact, which each caller reads for itself once it is written.
        self._tasks: Singleflight[bytes, None] = Singleflight(checked_by_callers)
        self._places = asyncio.Semaphore(PLACES)
        self._places_for_unknown_keys = asyncio.Semaphore(PLACES_FOR_UNKNOWN_KEYS)
        self._places_of_keys: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._tasks_of_keys: Counter[str] = Counter()
        self._tasks_of_unknown_keys = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, lock: bytes) -> bool:
        """Whether a task for this answer is under way in this worker."""
        return lock in self._tasks

    async def await_answer(
        self,
        lock: bytes,
        *,
        key_id: str,
        is_unknown_key: bool,
        ask: Callable[[], Awaitable[None]],
        is_answered: Callable[[], Awaitable[bool]],
    ) -> None:
        """Return once the answer is a fact. Raises what `ask` raises, or `Unavailable` after a timeout."""
        if lock not in self._tasks and not self._has_room_for(key_id, is_unknown_key=is_unknown_key):
            raise _undecided("too many questions wait to be asked")

        def begin() -> Coroutine[Any, Any, None]:
            self._tasks_of_keys[key_id] += 1
            self._tasks_of_unknown_keys += is_unknown_key
            return self._run(lock, key_id, is_unknown_key, ask, is_answered)

        await self._tasks.run(lock, begin)

    async def close(self) -> None:
        """Cancel all tasks."""
        await self._tasks.close()

    async def _run(
        self,
        lock: bytes,
        key_id: str,
        is_unknown_key: bool,  # noqa: FBT001 -- as in `await_answer`
        ask: Callable[[], Awaitable[None]],
        is_answered: Callable[[], Awaitable[bool]],
    ) -> None:
        place = self._place_for_unknown_key() if is_unknown_key else self._place_for(key_id)
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
                    if not await is_answered():  # answered by the worker that held the lock before
                        await ask()
                finally:
                    with suppress(Unavailable):  # the lock expires by itself
                        await self._locks.release(lock, holder)
        except TimeoutError as error:
            raise _undecided("no answer came in time") from error
        finally:
            self._tasks_of_unknown_keys -= is_unknown_key
            self._tasks_of_keys[key_id] -= 1
            if not self._tasks_of_keys[key_id]:
                del self._tasks_of_keys[key_id]

    def _has_room_for(self, key_id: str, *, is_unknown_key: bool) -> bool:
        if is_unknown_key and self._tasks_of_unknown_keys >= MAX_SHARED_QUESTIONS_FOR_UNKNOWN_KEYS:
            return False
        of_key = self._tasks_of_keys.get(key_id, 0)
        return len(self._tasks) < MAX_SHARED_QUESTIONS and of_key < MAX_SHARED_QUESTIONS_FOR_ONE_KEY

    @asynccontextmanager
    async def _place_for_unknown_key(self) -> AsyncIterator[None]:
        async with self._places_for_unknown_keys, self._places:
            yield

    @asynccontextmanager
    async def _place_for(self, key_id: str) -> AsyncIterator[None]:
        places = self._places_of_keys.setdefault(key_id, asyncio.Semaphore(PLACES_FOR_ONE_KEY))
        async with places, self._places:
            yield


def _undecided(why: str) -> Unavailable:
    return Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED)
