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

from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sized

HIGH_WATER_BYTES = 1 << 16
MAX_WRITE_BYTES = (1 << 20) + (1 << 16)  # a step of a file (`delivery/steps.py`) with a head before it
MAX_QUEUED_BYTES = HIGH_WATER_BYTES + MAX_WRITE_BYTES


class Flow(FlowControl):
    """uvicorn's flow control, which by itself reads on from such a client. `waiting`: pipelined requests."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def pause_writing(self) -> None:
        """Stop reading as well when the write buffer is above its high-water mark."""
        super().pause_writing()
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless writing is paused or requests wait: when that ends, this is called again."""
        if not self.write_paused and not self._waiting:
            super().resume_reading()
