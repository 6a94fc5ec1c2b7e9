"""Keeps the background tasks of a process running: restarts failed ones, and reports which are down.

A chore is a coroutine that should never end (`keep`), or one that is called at intervals (`every`). An
exception does not affect the other chores. It is reported with the chore's name, and the chore is started
again after a pause that grows while it keeps failing. While a chore is down the process is not ready
(`down`); the chore is up again once it has run for a while, or one of its calls has succeeded.

A failure with one of many items that a chore processes, one file for example, is no failure of the chore: it
reports the item by its name and goes on to the next.

Non-goals: what a chore does, and a graceful end: it is cancelled.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.errors import CachegateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0  # a chore that ran for so long did not fail early
RECOVERED_SECONDS = 1.0  # a restarted chore that has run for so long counts as up


@dataclass(slots=True)
class Chore:
    """The state of one chore. `failures` counts how often it failed so far."""

    name: str
    failures: int = 0
    is_down: bool = False


class EndedError(CachegateError):
    """A chore that should never end returned, or was cancelled by something other than `close`."""


class Chores:
    """All chores of a process. `on_failed` gets a chore's name, the exception, and the pause after it."""

    def __init__(
        self,
        on_failed: Callable[[str, Exception, float], None],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._on_failed = on_failed
        self._sleep = sleep
        self._chores: list[Chore] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def down(self) -> tuple[str, ...]:
        """The names of the chores that failed and are not up again."""
        return tuple(chore.name for chore in self._chores if chore.is_down)

    def keep(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run `work` for ever; it is called again when it ends."""
        self._begin(name, lambda chore: self._keep(chore, work))

    def every(self, name: str, seconds: float, make_round: Callable[[], Awaitable[object]]) -> None:
        """Call `make_round` for ever, `seconds` after the call before it has ended."""
        self._begin(name, lambda chore: self._make_rounds(chore, seconds, make_round))

    async def close(self) -> None:
        """Cancel all chores."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, name: str, run: Callable[[Chore], Awaitable[None]]) -> None:
        chore = Chore(name)
        self._chores.append(chore)
        self._tasks.append(asyncio.ensure_future(run(chore)))

    async def _keep(self, chore: Chore, work: Callable[[], Awaitable[object]]) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            recovering = asyncio.ensure_future(self._recover(chore))
            try:
                failure = await _failure_of(work) or EndedError("it ended, and is never to")
            finally:
                recovering.cancel()
            if loop.time() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._note(chore, failure, pause)
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _recover(self, chore: Chore) -> None:
        if chore.is_down:
            await self._sleep(RECOVERED_SECONDS)
            chore.is_down = False

    async def _make_rounds(
        self, chore: Chore, seconds: float, make_round: Callable[[], Awaitable[object]]
    ) -> None:
        pause = 0.0
        while True:
            await self._sleep(max(seconds, pause))
            failure = await _failure_of(make_round)
            if failure is None:
                chore.is_down, pause = False, 0.0
                continue
            pause = min(max(FIRST_PAUSE_SECONDS, 2 * pause), LONGEST_PAUSE_SECONDS)
            self._note(chore, failure, max(seconds, pause))

    def _note(self, chore: Chore, failure: Exception, pause: float) -> None:
        chore.failures += 1
        chore.is_down = True
        self._on_failed(chore.name, failure, pause)


async def _failure_of(work: Callable[[], Awaitable[object]]) -> Exception | None:
    """What it raised; None when it returned. A cancellation of the current task is passed on."""
    try:
        await work()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Something that it awaited was cancelled, not this task.
        failure = EndedError("what it waited for was cancelled")
        failure.__cause__ = error
        return failure
    except Exception as error:  # noqa: BLE001 -- the boundary of a chore: it must not affect the others
        return error
    return None
