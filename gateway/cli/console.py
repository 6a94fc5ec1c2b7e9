"""How commands speak: tables and colours for people, JSON for scripts, one line for a mistake.

Data goes to standard output, everything else to standard error, so that a pipe gets data only.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table for people.")]

PIPE_WIDTH = 10_000

people = Console(stderr=True, highlight=False, soft_wrap=True)
"""Standard error: notes, progress, mistakes."""


def print_json(document: Any) -> None:
    """One JSON document on standard output: indented for a terminal, one line for a pipe."""
    encoded = msgspec.json.encode(document, enc_hook=_plain)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(encoded.decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table on standard output; `empty` is said instead when there are no rows."""
    # A pipe has no width: a line a row, for grep, instead of cells that wrap at some column.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    listed = [[escape(str(cell)) if cell is not None else "-" for cell in row] for row in rows]
    if not listed:
        people.print(escape(empty))
        return
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in listed:
        table.add_row(*row)
    console.print(table)


def say(text: str, style: str = "") -> None:
    """A line for people; `text` is printed as it is."""
    people.print(escape(text), style=style)


def when(seconds: float | None) -> str | None:
    """A time as people and scripts read it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")
