"""Round-robin over many names in bounded batches, so that each comes up and no batch takes long."""

from __future__ import annotations


class RoundRobin:
    """Returns a list batch by batch, and starts again at its end."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, names: list[str], count: int) -> list[str]:
        """The next batch; the whole list if it has no more than `count`.

        The list may change between calls.
        """
        if len(names) <= count:
            self._next = 0
            return names
        start = self._next % len(names)
        self._next = start + count
        return (names[start : self._next] + names[: max(0, self._next - len(names))])[:count]
