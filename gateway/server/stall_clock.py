"""The stall clock: how long a client may take in nothing of what was written to its connection.

One clock for each connection, whoever writes: the application, answers from memory, early refusals, the
kernel by `sendfile`, the end of TLS. It runs from the connection to its loss, so nothing has to be told
that something was written, and what a closed connection still has to flush is under it as well.

What counts is what the client's own kernel acknowledged. New bytes that are queued for it are no progress,
or a client could keep an answer for ever by asking for another one now and then. Within each `seconds` it
has to take in `LEAST_BYTES_PER_SECOND` of them, or all that there is; else the connection is broken off.
A connection that has nothing left to take is not this clock's matter: the disk, the provider or the next
request is what is waited for then, and each has a limit of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

STALL_SECONDS = 10.0  # where nothing else is set, as for probes
LEAST_BYTES_PER_SECOND = 240  # what servers commonly demand; 14 kB in the 60 s that are set as shipped
LOOKS = 8  # in each `seconds`: a stalled client is cut at most a quarter of them late


class Outflow(Protocol):
    """What is on its way to one client."""

    def unsent_bytes(self) -> int:
        """How much the client has not acknowledged yet, wherever it is kept."""

    def acknowledged_bytes(self) -> int:
        """How much it has acknowledged since some moment."""

    def abort(self) -> None:
        """Break the connection off."""


def _note_nothing() -> None:
    return


class StallClock:
    """The clock of one connection. `start` when it is made, `stop` once it is lost."""

    __slots__ = ("_goal", "_least_bytes", "_loop", "_on_stall", "_outflow", "_seconds", "_since", "_timer")

    def __init__(
        self,
        outflow: Outflow,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        on_stall: Callable[[], None] = _note_nothing,
    ) -> None:
        self._outflow = outflow
        self._loop = loop
        self._seconds = seconds
        self._least_bytes = max(1, int(LEAST_BYTES_PER_SECOND * seconds))
        self._on_stall = on_stall
        self._goal: int | None = None  # what has to be acknowledged in time; None while there is nothing
        self._since = 0.0  # when that goal was set
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from here on."""
        self._timer = self._loop.call_later(self._seconds / LOOKS, self._look)

    def stop(self) -> None:
        """The connection is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        unsent = self._outflow.unsent_bytes()
        if unsent == 0:  # as a rule
            self._goal = None
        elif self._is_late(unsent):
            self._timer = None
            self._on_stall()
            self._outflow.abort()
            return
        self.start()

    def _is_late(self, unsent: int) -> bool:
        """Whether the time is over for what had to be acknowledged. Sets the next goal when that was."""
        now, acknowledged = self._loop.time(), self._outflow.acknowledged_bytes()
        if self._goal is None or acknowledged >= self._goal:
            self._goal, self._since = acknowledged + min(unsent, self._least_bytes), now
        return now - self._since >= self._seconds
