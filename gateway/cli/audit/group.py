"""All commands of `cachegate audit`, in one group: those on the log as a whole, and those on its evidence."""

from __future__ import annotations

from gateway.cli.audit import consumers, evidence, export, following, questions
from gateway.cli.audit.commands import commands

__all__ = ["commands"]

commands.command("prove")(evidence.prove)
commands.command("heads")(evidence.heads)
commands.command("anchor")(evidence.anchor)
commands.command("rotate-key")(evidence.rotate)
commands.command("schema")(evidence.schema)
commands.command("export")(export.export)
commands.command("who-read")(questions.who_read)
commands.command("key")(questions.key)
commands.command("timeline")(questions.timeline)
commands.command("report")(questions.report)
commands.command("follow")(following.follow)
commands.add_typer(consumers.commands, name="consumers")
