"""Prints the result of a command: one JSON document for scripts, or tables, lines and notes for people.

A command has a result, mostly a value of `operations/`, and declares how people see it; `show` prints one of
the two and ends the command. Data (JSON, tables, lines) goes to standard output, everything else to standard
error, so that a pipe gets data only.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.model.errors import CachegateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TextIO

    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table for people.")]

PIPE_WIDTH = 10_000


@cache
def people() -> Console:
    """Standard error: notes, progress, errors."""
    from rich.console import Console  # noqa: PLC0415 -- a command that prints JSON needs none of it

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_mistake(text: str) -> None:
    """Print an error on standard error, as it is."""
    from rich.markup import escape  # noqa: PLC0415 -- as above

    people().print(f"[bold red]cachegate:[/] {escape(text)}")


class OutputError(CachegateError):
    """Standard output cannot be written: a full disk, a closed descriptor. What was done stays done."""


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output, flushed to the kernel at the end. Raises `OutputError`.

    `BrokenPipeError` passes through: the reader of a pipe closed it, which is no error.
    """
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        forget_output()
        raise OutputError(f"standard output cannot be written ({error.strerror})") from error


def forget_output() -> None:
    """Redirect standard output to /dev/null, because the interpreter flushes its buffer once more at exit."""
    with suppress(OSError, ValueError):  # a replacement of standard output has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


class Note(msgspec.Struct, frozen=True):
    """A line for people on standard error, printed as it is. A failure to print it is ignored."""

    text: str
    style: str = ""

    def print(self) -> None:
        """Print it."""
        from rich.markup import escape  # noqa: PLC0415 -- a command that prints JSON needs none of it

        with suppress(OSError):
            people().print(escape(self.text), style=self.style)


class Line(msgspec.Struct, frozen=True):
    """A line of data on standard output."""

    text: str

    def print(self) -> None:
        """Print it."""
        with standard_output() as out:
            out.write(f"{self.text}\n")


class Table(msgspec.Struct, frozen=True):
    """A table on standard output; without rows, the note `empty` instead."""

    title: str
    columns: Sequence[str]
    rows: Iterable[Sequence[object]]
    empty: str = ""

    def print(self) -> None:
        """Print it. In a pipe each row is one line, for grep: cells must not wrap at some column."""
        from rich.console import Console  # noqa: PLC0415 -- as above
        from rich.markup import escape  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415

        console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        listed = [[escape(str(cell)) if cell is not None else "-" for cell in row] for row in self.rows]
        if not listed:
            Note(self.empty).print()
            return
        title = escape(self.title)
        table = RichTable(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in listed:
            table.add_row(*row)
        with standard_output():
            console.print(table)


def show(
    document: object,
    shown: Iterable[Note | Line | Table],
    *,
    as_json: bool,
    notes: Iterable[Note] = (),
    is_yes: bool = True,
) -> None:
    """Print a result: the document to scripts, or what is shown to people; then the notes, to both.

    Exits with status 1 where the answer is no.
    """
    if as_json:
        print_json(document)
    for item in (*(() if as_json else shown), *notes):
        item.print()
    if not is_yes:
        raise typer.Exit(1)


@contextmanager
def showing_key(key_id: str) -> Iterator[None]:
    """Show a new key within this context, this once.

    A key that was created but not shown is a risk, since it is valid: so the error names its id.
    """
    try:
        yield
    except (OutputError, BrokenPipeError) as error:
        forget_output()
        why = "its reader is gone" if isinstance(error, BrokenPipeError) else str(error)
        raise OutputError(
            f"the key {key_id} was created and could not be shown: {why}. Nobody has it; revoke it with "
            f"`cachegate keys revoke {key_id}`, then create another"
        ) from error


def print_json(document: Any) -> None:
    """One JSON document on standard output: indented for a terminal, one line for a pipe."""
    encoded = msgspec.json.encode(document, enc_hook=_plain)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    with standard_output() as out:
        out.write(encoded.decode() + "\n")


def say(text: str, style: str = "") -> None:
    """Print a note at once, where there is no result to show it with."""
    Note(text, style).print()


def _plain(value: object) -> object:
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")
