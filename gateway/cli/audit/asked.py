"""What the commands that read the log as a whole have in common: their options, and how they read."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.adapters.clock import SystemClock
from gateway.audit.events import Query, read_events
from gateway.cli.audit.sources import Sources, searched_note
from gateway.cli.distrust import Warnings
from gateway.cli.periods import parse_past
from gateway.terminal.console import forget_output
from gateway.terminal.progress import watching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.audit.record import Record

WherePaths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[PATH]...", help="Audit folders or files; the settings' folder if none."),
]
FromPaths = Annotated[
    list[Path] | None,
    typer.Option("--log", help="An audit folder or file, any number; the settings' folder if none."),
]
Tenant = Annotated[str | None, typer.Option(help="Of which tenant.")]
TenantRecord = Annotated[str | None, typer.Option(help="Of which tenant of that name: the id of its record.")]
Since = Annotated[str | None, typer.Option(help="From: 2h (ago), or 2030-01-31T12:00:00Z.")]
Until = Annotated[str | None, typer.Option(help="Before: the same forms.")]


def take_all(
    take: Callable[[Record], None], paths: list[Path] | None, since: str | None, until: str | None
) -> Sources:
    """Give every record of a time to `take`, and say which chains were read."""
    now = SystemClock().now()
    sources = Sources.of(paths, Warnings())
    query = Query(since=parse_past(since, now), until=parse_past(until, now))
    with watching("reading", sources.paths):
        for event in read_events(sources.paths, query):
            take(event.record)
    searched_note(sources).print()
    return sources


def is_own(sources: Sources) -> bool:
    """Whether what is read is of the audit folder of this installation."""
    if sources.settings is None:
        return False
    own = sources.settings.audit_folder.resolve()
    return any(path.resolve() == own or path.resolve().parent == own for path in sources.paths)


@contextmanager
def on_closed_pipe() -> Iterator[None]:
    """Exit with status 0 when the reader of a pipe has closed it, as `head` does."""
    try:
        yield
    except BrokenPipeError:
        forget_output()
        raise typer.Exit(0) from None
