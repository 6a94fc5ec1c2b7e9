"""The order as it is known from its file: runs and sources, read on as the file grows."""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import TYPE_CHECKING

from gateway.audit.index.journal import VERSION, BeginEntry, RunEntry, SourceEntry, order_path, unframed

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK_BYTES = 1 << 20


class KnownOrder:
    """The content of the file, up to the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self._path = order_path(folder)
        self._state = (0, 0)  # the inode and size at the last look
        self._forget()

    def _forget(self) -> None:
        self.order = ""
        self.node = ""
        self.sources: list[tuple[str, int]] = []
        self.runs: list[RunEntry] = []
        self.places: list[int] = [0]  # in front of each run, and behind the last one
        self.size = 0  # of the whole entries

    @property
    def end(self) -> int:
        """How many records are in order."""
        return self.places[-1]

    def is_changed(self) -> bool:
        """Whether the file is another one, or longer, than at the last `refresh`."""
        try:
            status = self._path.lstat()
        except OSError:
            return self._state != (0, 0)
        return self._state != (status.st_ino, status.st_size)

    def refresh(self) -> None:
        """Read on, or anew when the file is another one. A file that is gone or damaged has no order."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._state = (0, 0)
            self._forget()
            return
        try:
            status = os.fstat(descriptor)
            if status.st_ino != self._state[0] or status.st_size < self.size:
                self._forget()
            self._state = (status.st_ino, status.st_size)
            while raw := os.pread(descriptor, _BLOCK_BYTES, self.size):
                before = self.size
                for entry, end in unframed(raw):
                    if not self._take(entry):
                        return
                    self.size = before + end
                if self.size == before:
                    return
        finally:
            os.close(descriptor)

    def _take(self, entry: BeginEntry | SourceEntry | RunEntry) -> bool:
        if isinstance(entry, BeginEntry):
            if self.order or entry.version != VERSION:
                return False
            self.order, self.node = entry.order, entry.node
            return True
        if not self.order:
            return False
        if isinstance(entry, SourceEntry):
            try:
                self.sources.append(entry.segment())
            except ValueError:
                return False
            return True
        fits = (
            0 <= entry.source < len(self.sources)
            and 0 <= entry.start < entry.end
            and 0 < entry.count <= entry.end - entry.start
        )
        if fits:
            self.runs.append(entry)
            self.places.append(self.places[-1] + entry.count)
        return fits

    def run_at(self, place: int) -> int:
        """The number of the run that holds a place; the number of runs for the end."""
        return bisect_right(self.places, place) - 1
