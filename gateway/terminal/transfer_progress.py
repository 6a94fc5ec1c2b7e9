"""Progress bar for a transfer of many facts, with rate and remaining time. Nothing for pipes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gateway.terminal.console import people

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Task


class Advance:
    """One bar. `total` may become known later."""

    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)

    def expect(self, total: int) -> None:
        """Set the total."""
        self._progress.update(self._task, total=total)

    def by(self, count: int = 1) -> None:
        """Add finished facts."""
        self._progress.advance(self._task, count)


@contextmanager
def transfer_progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show a bar for as long as this context lasts."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
        yield Advance(progress, what, total)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")
