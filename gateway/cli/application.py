"""The Typer application that commands are registered with, and its option `--version`.

A module of its own, so that the commands and `main.py` can both import it.
"""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Exit

from gateway import __version__


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from gateway.terminal.console import Line  # noqa: PLC0415 -- what it imports takes longer than this

        Line(f"cachegate {__version__}").print()
        raise Exit


def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """The guard in front of a shared model and blob cache."""


def new_application() -> typer.Typer:
    """An application without commands."""
    made = typer.Typer(
        name="cachegate",
        help="The guard in front of a shared model and blob cache.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,  # tracebacks with local variables would print keys (I8)
    )
    made.callback()(options)
    return made


app = new_application()
"""The application that `commands.py` registers all commands with."""
