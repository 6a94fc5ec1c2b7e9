"""Progress bars for people who watch; nothing for pipes.

One bar, `Bar`, with two forms: `counting` shows how many of a number of items are done, and `reading` how
many bytes. `watching` watches the reading of files from outside, by how much this process has read as the
kernel reports it: so `gateway/audit` needs no code for terminals, and where the kernel does not report it
there is no bar.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from gateway.terminal import console

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Task

people = console.people()

MUCH_BYTES = 64 * 1024 * 1024  # about a second of verifying; below that, a bar would only flicker
_CHECK_SECONDS = 0.1
_READ_SO_FAR = re.compile(r"^rchar: ([0-9]+)$", re.MULTILINE)


class Bar:
    """A bar that any thread may advance. Without a progress display it shows nothing."""

    def __init__(self, progress: Progress | None = None, what: str = "", total: int | None = None) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(what, total=total)

    def expect(self, total: int) -> None:
        """Set the total."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=total)

    def advance(self, count: int = 1) -> None:
        """Add what is done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)

    def set(self, completed: int) -> None:
        """Set what is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=completed)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Bar]:
    """A bar of items, with their rate and the remaining time, for as long as this context lasts."""
    with _shown(what, total, MofNCompleteColumn(), _RateColumn()) as bar:
        yield bar


@contextmanager
def reading(what: str, total: int | None = None) -> Iterator[Bar]:
    """A bar of bytes, with throughput and the remaining time, for as long as this context lasts."""
    with _shown(what, total, DownloadColumn(), TransferSpeedColumn()) as bar:
        yield bar


@contextmanager
def verifying(paths: Sequence[Path]) -> Iterator[None]:
    """Show how much of what is verified was read, for as long as this context lasts."""
    with watching("verifying", paths):
        yield


@contextmanager
def watching(what: str, paths: Sequence[Path]) -> Iterator[None]:
    """Show how much of these files and folders was read, for as long as this context lasts."""
    total = sum(map(_size, paths))
    begun_at = find_bytes_read()
    if total < MUCH_BYTES or begun_at is None or not people.is_terminal:
        yield
        return
    finished = threading.Event()
    with reading(what, total) as bar:

        def watch() -> None:
            while not finished.wait(_CHECK_SECONDS):
                bar.set(min(total, (find_bytes_read() or begun_at) - begun_at))

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            finished.set()
            watching.join()


def find_bytes_read() -> int | None:
    """How many bytes this process has read so far; None where the kernel does not report it."""
    try:
        match = _READ_SO_FAR.search(Path("/proc/self/io").read_text(encoding="ascii"))
    except OSError:
        return None
    return int(match[1]) if match else None


def readable_size(count: int) -> str:
    """A number of bytes as people read it."""
    return decimal(count)


@contextmanager
def _shown(what: str, total: int | None, *columns: ProgressColumn) -> Iterator[Bar]:
    if not people.is_terminal:
        yield Bar()
        return
    every = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*every, console=people, transient=True) as progress:
        yield Bar(progress, what, total)


def _size(path: Path) -> int:
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0  # the verification reports what is wrong
