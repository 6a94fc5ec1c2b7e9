"""All commands of `cachegate audit`, in one group: those on the log as a whole, and those on its evidence."""

from __future__ import annotations

from gateway.cli.audit import consumers, evidence, following
from gateway.cli.audit.commands import commands

__all__ = ["commands"]

commands.command("prove")(evidence.prove)
commands.command("heads")(evidence.heads)
commands.command("anchor")(evidence.anchor)
commands.command("rotate-key")(evidence.rotate)
commands.command("schema")(evidence.schema)
commands.command("follow")(following.follow)
commands.add_typer(consumers.commands, name="consumers")
