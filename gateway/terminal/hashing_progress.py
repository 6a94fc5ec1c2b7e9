"""Progress bar for hashing, with throughput and remaining time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gateway.terminal.console import people

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID


class HashingProgress:
    """Counts hashed bytes, from several threads; shows nothing when there is no terminal."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def expect(self, total_bytes: int) -> None:
        """Set how many bytes there are to hash."""
        if self._progress is not None:
            self._task = self._progress.add_task("hashing", total=total_bytes)

    def advance(self, count: int) -> None:
        """Add hashed bytes."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)


@contextmanager
def hashing_progress() -> Iterator[HashingProgress]:
    """A bar on a terminal, for as long as this context lasts."""
    if not people.is_terminal:
        yield HashingProgress()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=people, transient=True) as progress:
        yield HashingProgress(progress)


def readable_size(count: int) -> str:
    """A number of bytes as people read it."""
    return decimal(count)
