"""`cachegate directory`: the facts as a whole, which facts they are, and how they get out and in."""

from __future__ import annotations

import typer

from gateway.cli import directory_history, directory_transfer

commands = typer.Typer(
    help="The facts as a whole: show, accept, group, export, import.", no_args_is_help=True
)
commands.command("show")(directory_history.show)
commands.command("accept")(directory_history.accept)
commands.command("group")(directory_history.group)
commands.command("export")(directory_transfer.export)
commands.command("import")(directory_transfer.import_)
