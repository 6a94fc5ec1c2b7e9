"""Turns: how much all who send files in one event loop may send before others are heard again.

A step of `sendfile` holds up the event loop for as long as the kernel takes, some 100 microseconds for
512 KiB, and each step has a cost of its own: smaller ones cost more for each byte, and larger ones
fill the socket's buffer, which has to be waited for then. When more send than a turn holds, the rest
wait for one of the next turns, in their order. A thousand downloads then delay a small answer no more
than four do.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

STEP_BYTES = 512 << 10
TURN_SENDERS = 4  # two megabytes in a turn, less than half a millisecond from memory


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return in a later turn of the event loop."""
        waiting = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._advance, loop)
        self._waiting.append(waiting)
        await waiting

    def _advance(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(TURN_SENDERS, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():  # whoever was cancelled has left
                waiting.set_result(None)
        if self._waiting:
            loop.call_soon(self._advance, loop)
