"""Progress bar for a long verification; nothing for pipes and short ones.

Progress is measured by how much this process has read, as the kernel reports it. So `gateway/audit` needs no
code for terminals, and where the kernel does not report it there is no bar.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.terminal.console import people

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MUCH_BYTES = 64 * 1024 * 1024  # about a second of verifying; below that, a bar would only flicker
_LOOK_SECONDS = 0.1
_READ_SO_FAR = re.compile(r"^rchar: ([0-9]+)$", re.MULTILINE)


@contextmanager
def reading_progress(paths: Sequence[Path]) -> Iterator[None]:
    """Show how much of these files and folders was read, for as long as this context lasts."""
    total = sum(map(_size, paths))
    begun_at = find_bytes_read()
    if total < MUCH_BYTES or begun_at is None or not people.is_terminal:
        yield
        return
    finished = threading.Event()
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, transient=True) as progress:
        task = progress.add_task("", total=total)

        def watch() -> None:
            while not finished.wait(_LOOK_SECONDS):
                progress.update(task, completed=min(total, (find_bytes_read() or begun_at) - begun_at))

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


def _size(path: Path) -> int:
    try:
        files = list(path.iterdir()) if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files if file.is_file())
    except OSError:
        return 0  # the verification reports what is wrong
