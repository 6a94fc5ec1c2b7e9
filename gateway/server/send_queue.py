"""Turns: how much all who send files in one event loop may send before others are heard again.

A step of `sendfile` holds up the event loop for as long as the kernel takes, some 100 microseconds for
512 KiB, and each step has a cost of its own: smaller ones cost more for each byte, and larger ones
leave the processor's cache before the client has read them. Whoever has more to send stands in line,
and a turn of the event loop takes two from its head. A thousand downloads then delay a small answer no more
than two do.

It is the line that calls the steps. To wake a task for each would cost as much again as the step, and
another turn of the event loop.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    Step = Callable[[], bool]
    """Sends something; whether there is more. It does not raise."""

STEP_BYTES = 512 << 10
TURN_STEPS = 2  # a megabyte in a turn, some 200 microseconds from memory


class SendQueue:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._line: deque[Step] = deque()
        self._is_called = False  # for the next turn

    def line_up(self, step: Step, loop: asyncio.AbstractEventLoop) -> None:
        """Have a step taken in one of the next turns, and again for as long as it says that there is more."""
        self._line.append(step)
        self._call(loop)

    def begin(self, step: Step, loop: asyncio.AbstractEventLoop) -> None:
        """The same, but now if nobody has had this turn: what is short does not wait for another."""
        if self._is_called:
            self._line.append(step)
            return
        self._call(loop)
        if step():
            self._line.append(step)

    async def next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when everybody who stands in line now has had a turn."""
        waiting = loop.create_future()

        def come_to_the_head() -> bool:
            if not waiting.done():  # whoever was cancelled has left
                waiting.set_result(None)
            return False

        self.line_up(come_to_the_head, loop)
        await waiting

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_called:
            self._is_called = True
            loop.call_soon(self._take, loop)

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_called = False
        try:
            for _ in range(min(TURN_STEPS, len(self._line))):
                step = self._line.popleft()
                if step():
                    self._line.append(step)
        finally:  # whatever one of them does, the others go on
            if self._line:
                self._call(loop)
