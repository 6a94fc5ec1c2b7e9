"""Count what could not be recorded, for the `gap` record that is written once the log can be written again.

A gap begins with the first fault and ends when a record can be written. Nothing was served in it (I5): its
record says from when to when, why, and how many calls for a record were refused. A request that is tried
again counts again, and a check of the log by the worker itself does not count.
"""

from __future__ import annotations

import msgspec


class Gap(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A time in which nothing could be recorded, and nothing was served."""

    since: float
    until: float
    refused: int
    why: str


class OpenGap:
    """A gap that has not ended, or none."""

    __slots__ = ("_refused", "_since", "_why")

    def __init__(self) -> None:
        self._since: float | None = None
        self._refused = 0
        self._why = ""

    def begin(self, now: float, why: str) -> None:
        """Note a fault. Further faults belong to the same gap, which is named after the first."""
        if self._since is None:
            self._since, self._why = now, why

    def count(self, calls: int = 1) -> None:
        """Count calls that were refused."""
        self._refused += calls

    def end(self, now: float) -> Gap | None:
        """The gap that ends now, if there was one."""
        if self._since is None:
            return None
        gap = Gap(since=self._since, until=max(now, self._since), refused=self._refused, why=self._why)
        self._since, self._refused = None, 0
        return gap
