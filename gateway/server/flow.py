"""Back-pressure of one connection: no reading from a client that does not take its answers.

This bounds what is queued in this process for a client. Once `HIGH_WATER_BYTES` are queued, no answer is
written until the client has taken some (answers from memory are not given, the application's `send` waits),
and nothing more is read, so that further requests are not even parsed. So no more is queued than this and
the one write that came last: `MAX_QUEUED_BYTES`. Over TLS it is twice that: as much again may be encrypted
already.

Nothing is read either while parsed requests are waiting: only those that one read of the socket held wait.

What the kernel holds in addition is bounded in `kernel_queue.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sized

HIGH_WATER_BYTES = 1 << 16
MAX_WRITE_BYTES = (1 << 20) + (1 << 16)  # a step of a file (`delivery/steps.py`) with a head before it
MAX_QUEUED_BYTES = HIGH_WATER_BYTES + MAX_WRITE_BYTES


class Flow:
    """Pauses and resumes one transport. `waiting`: the requests that wait for an earlier answer."""

    __slots__ = ("_has_room", "_is_read_paused", "_transport", "_waiting", "write_paused")

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        self._transport = transport
        self._waiting = waiting
        self._is_read_paused = False
        self.write_paused = False
        self._has_room = asyncio.Event()  # set while writing is not paused
        self._has_room.set()

    async def drain(self) -> None:
        """Return once writing is not paused."""
        await self._has_room.wait()

    def pause_writing(self) -> None:
        """Stop writing, and reading as well: the write buffer is above its high-water mark."""
        self.write_paused = True
        self._has_room.clear()
        self.pause_reading()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.write_paused = False
        self._has_room.set()

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        if not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless writing is paused or requests wait: when that ends, this is called again."""
        if self._is_read_paused and not self.write_paused and not self._waiting:
            self._is_read_paused = False
            self._transport.resume_reading()
