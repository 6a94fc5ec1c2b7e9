"""Back-pressure of one connection: nothing is read from a client that does not take in its answers.

What is queued for a client in this process is bounded by that. Once `HIGH_WATER_BYTES` wait for it, no
answer is written until it has taken some (answers from memory are not given, the application's `send`
waits), and nothing more is read, so that requests which would ask for more are not even parsed. So no
more is queued than this and the one write that came last: `MAX_QUEUED_BYTES`. Over TLS it is twice that:
as much again may be encrypted already.

Nothing is read either while requests wait their turn: what waits is what one read of the socket held.

What the kernel keeps beside it is bounded in `kernel_queue.py`.
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
    """uvicorn's, which reads on while its client takes in nothing. `waiting` are the requests in line."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def pause_writing(self) -> None:
        """More waits than the client takes."""
        super().pause_writing()
        self.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless there is a reason not to: then whoever ends it asks again."""
        if not self.write_paused and not self._waiting:
            super().resume_reading()
