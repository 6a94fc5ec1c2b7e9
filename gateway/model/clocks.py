"""Clocks as Protocols: no package reads a clock itself, so that tests need no patching."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The wall clock; stages never read one themselves."""

    def now(self) -> float:
        """Seconds since the epoch."""


class MonotonicClock(Protocol):
    """A clock that cannot be set and that continues while the machine sleeps."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
