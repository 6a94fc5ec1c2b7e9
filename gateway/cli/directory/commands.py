"""`cachegate directory`: registers its commands, which concern the facts as a whole."""

from __future__ import annotations

import typer

from gateway.cli.directory import history, transfer

commands = typer.Typer(
    help="The facts as a whole: show, accept, group, export, import.", no_args_is_help=True
)
commands.command("show")(history.show)
commands.command("accept")(history.accept)
commands.command("group")(history.group)
commands.command("export")(transfer.export)
commands.command("import")(transfer.import_)
