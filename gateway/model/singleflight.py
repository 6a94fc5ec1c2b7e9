"""Singleflight: callers that need the same result at the same time share one task.

A task belongs to no caller: one that is cancelled leaves the others waiting for it. Its failure is every
caller's failure.

A task may have begun before a caller came, and a change between the two may have overtaken its result: even a
denial could be outdated then, and denials have no last check before they are sent (I6). So a caller that
joins a task uses its result only if the result is still current once it is there. Otherwise it waits for a
task that began after it came: no such task has read anything older than the caller.

For one event loop. Non-goals: how many tasks there may be, and remembering results (`bounded_memory.py`).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

K = TypeVar("K")
V = TypeVar("V")


def checked_by_callers(_key: object, _result: object) -> bool:
    """For results that every caller checks for itself, also those of a task that it began."""
    return True


class Singleflight(Generic[K, V]):
    """The tasks under way, by what they find out."""

    __slots__ = ("_is_current", "_tasks")

    def __init__(self, is_current: Callable[[K, V], bool]) -> None:
        """`is_current` says whether no change has overtaken the result for a key."""
        self._is_current = is_current
        self._tasks: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        """Whether a caller that comes now joins a task."""
        return key in self._tasks

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of the task for this key. `work` is called, before anything is awaited, to begin one."""
        return (await self.run_many([key], lambda _: work()))[key]

    async def run_many(
        self, keys: Iterable[K], work: Callable[[list[K]], Coroutine[Any, Any, V]]
    ) -> dict[K, V]:
        """By key, the result of its task. `work` begins one task for all keys that have none."""
        results: dict[K, V] = {}
        missing = list(dict.fromkeys(keys))
        is_certainly_later = False  # whether every task that is joined began after this call
        while missing:
            tasks = {key: task for key in missing if (task := self._tasks.get(key)) is not None}
            joined = frozenset() if is_certainly_later else frozenset(tasks)
            new = [key for key in missing if key not in tasks]
            if new:
                tasks |= dict.fromkeys(new, self._begin(new, work(new)))
            missing = []
            for key, task in tasks.items():
                if not task.done():
                    await asyncio.wait({task})  # which leaves the task alone when this caller is cancelled
                result = task.result()
                if key in joined and not self._is_current(key, result):
                    self._end([key], task)
                    missing.append(key)
                else:
                    results[key] = result
            is_certainly_later = True
        return results

    def forget(self, keys: Iterable[K] | None = None) -> None:
        """What these tasks find out has changed (None: of all). Nobody joins them from now on."""
        if keys is None:
            self._tasks.clear()
            return
        for key in keys:
            self._tasks.pop(key, None)

    async def finish(self) -> None:
        """Wait for all tasks."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks.values():
            task.cancel()
        await self.finish()

    def _begin(self, keys: list[K], work: Coroutine[Any, Any, V]) -> asyncio.Task[V]:
        task = asyncio.create_task(work)
        self._tasks.update(dict.fromkeys(keys, task))
        task.add_done_callback(partial(self._end, keys))
        return task

    def _end(self, keys: list[K], task: asyncio.Task[V]) -> None:
        for key in keys:
            if self._tasks.get(key) is task:
                del self._tasks[key]
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not warn when every waiter was cancelled
