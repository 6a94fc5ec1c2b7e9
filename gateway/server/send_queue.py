"""A fair queue for sending files: bounds how much all senders of an event loop send in one iteration.

A step of `sendfile` blocks the event loop for as long as the kernel takes, some 100 microseconds for 512 KiB.
Each step has a fixed cost: smaller steps cost more for each byte, and larger ones leave the processor's cache
before the client has read them. Senders with more to send wait in a FIFO queue, and each iteration of the
event loop takes two steps from its head. So a thousand downloads delay a small answer no more than two do.

The queue calls the steps itself. Waking a task for each step would cost as much again as the step, and
another event loop iteration.
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
TURN_STEPS = 2  # a megabyte in one iteration, some 200 microseconds from memory
TURN_BYTES = TURN_STEPS * STEP_BYTES


class SendQueue:
    """The queue of one event loop."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()
        self._is_called = False  # whether `_take` is scheduled for the next iteration
        self._left_bytes = TURN_BYTES  # of this iteration, for what is sent beside the queue

    def may_send(self, count: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether so many bytes, a step at most, may be sent now: nobody waits, and there is room."""
        if not self._is_called:
            self._call(loop)
            self._left_bytes = TURN_BYTES
        if self._steps or self._left_bytes < count:
            return False
        self._left_bytes -= count
        return True

    def line_up(self, step: Step, loop: asyncio.AbstractEventLoop) -> None:
        """Queue a step for one of the next iterations; it is queued again for as long as it returns True."""
        self._steps.append(step)
        self._call(loop)

    def begin(self, step: Step, loop: asyncio.AbstractEventLoop) -> None:
        """The same, but take the step now if the queue is idle, so that short ranges are not delayed."""
        if self._is_called:
            self._steps.append(step)
            return
        self._call(loop)
        if step():
            self._steps.append(step)

    async def next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when every step that is queued now was taken once."""
        waiting = loop.create_future()

        def wake() -> bool:
            if not waiting.done():  # it may have been cancelled
                waiting.set_result(None)
            return False

        self.line_up(wake, loop)
        await waiting

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_called:
            self._is_called = True
            loop.call_soon(self._take, loop)

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_called = False
        try:
            for _ in range(min(TURN_STEPS, len(self._steps))):
                step = self._steps.popleft()
                if step():
                    self._steps.append(step)
        finally:  # when a step fails all the same, the others still get theirs
            if self._steps:
                self._call(loop)
