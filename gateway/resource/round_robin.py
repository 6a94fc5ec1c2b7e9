"""Whose turn it is: a few of many names at a time, so that each comes up and no turn is long."""

from __future__ import annotations


class RoundRobin:
    """Goes through a list, so many at a time, and begins again at its end."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, names: list[str], count: int) -> list[str]:
        """Those whose turn it is; all of them, where they are few. The list may be another each time."""
        if len(names) <= count:
            self._next = 0
            return names
        start = self._next % len(names)
        self._next = start + count
        return (names[start : self._next] + names[: max(0, self._next - len(names))])[:count]
