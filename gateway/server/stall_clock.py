"""The stall clock: cuts a connection whose client acknowledges too little of what was written to it.

There is one clock for each connection, whichever code writes: the application, answers from memory, early
refusals, `sendfile`, the end of TLS. It runs from the connection to its loss. So no writer has to report to
it, and the flush of a connection that is being closed is covered as well.

Progress is what the client's kernel has acknowledged. Newly queued bytes are not progress: otherwise a client
could keep an answer for ever by requesting another one now and then. In each `seconds` the client has to
acknowledge `LEAST_BYTES_PER_SECOND` of them, or all that is unsent; otherwise the connection is aborted.
A connection with nothing unsent is outside this clock's scope: it waits for the disk, the provider or the
next request, and each of these has a timeout of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.server.connection import Connection

STALL_SECONDS = 10.0  # where nothing else is set, as for the ops listener
LEAST_BYTES_PER_SECOND = 240  # a common minimum rate of servers; 14 kB in the 60 s of the default setting
LOOKS = 8  # checks in each `seconds`: a stalled client is cut at most a quarter of them late


class StallClock:
    """The clock of one connection. `start` when it is made, `stop` once it is lost."""

    __slots__ = ("_connection", "_goal", "_least_bytes", "_loop", "_on_stall", "_seconds", "_since", "_timer")

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._seconds = seconds
        self._least_bytes = max(1, int(LEAST_BYTES_PER_SECOND * seconds))
        self._on_stall = on_stall
        self._goal: int | None = None  # what has to be acknowledged in time; None while nothing is unsent
        self._since = 0.0  # when that goal was set
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Schedule the next check."""
        self._timer = self._loop.call_later(self._seconds / LOOKS, self._check)

    def stop(self) -> None:
        """Stop, as the connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        unsent = self._connection.unsent_bytes()
        if unsent == 0:  # the usual case
            self._goal = None
        elif self._is_late(unsent):
            self._timer = None
            self._on_stall()
            self._connection.abort()
            return
        self.start()

    def _is_late(self, unsent: int) -> bool:
        """Whether the goal was missed in its time. Sets the next goal when the goal was met."""
        now, acknowledged = self._loop.time(), self._connection.acknowledged_bytes()
        if self._goal is None or acknowledged >= self._goal:
            self._goal, self._since = acknowledged + min(unsent, self._least_bytes), now
        return now - self._since >= self._seconds
