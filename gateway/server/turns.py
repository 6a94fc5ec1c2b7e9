"""Turns: how much all who send files in one event loop may send before others are heard again.

A step of `sendfile` holds up the event loop for as long as the kernel takes, some 50 microseconds for
256 KiB, and each step has a cost of its own. So few senders take large steps and many take small ones;
and when there are more than a turn holds, the rest wait for one of the next turns, in their order. A
thousand downloads then delay a small answer no more than twelve do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN_BYTES = 3 << 20  # of all senders together: half a millisecond, from memory
TURN_SENDERS = 12
MOST_STEP_BYTES = 1 << 21


class Turns:
    """The turns of one event loop."""

    def __init__(self) -> None:
        self.step_bytes = MOST_STEP_BYTES
        self._senders = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """For as long as somebody sends: who sends is counted."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def next(self) -> None:
        """Return in a later turn of the event loop."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._advance)
        self._waiting.append(waiting)
        await waiting

    def _count(self, more: int) -> None:
        self._senders += more
        self.step_bytes = min(TURN_BYTES // max(1, min(self._senders, TURN_SENDERS)), MOST_STEP_BYTES)

    def _advance(self) -> None:
        for _ in range(min(TURN_SENDERS, len(self._waiting))):
            waiting = self._waiting.popleft()
            if not waiting.done():  # whoever was cancelled has left
                waiting.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._advance)
