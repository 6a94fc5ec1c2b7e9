"""What commands there are, by name, without importing them: each imports what it needs and nothing else.

A command starts in a fraction of the time that importing all of them takes. `cachegate --help` prints the
lines here; a test holds that they are those of the commands themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import typer


class Entry(NamedTuple):
    """Where a command is, and its line in the help. `attribute` is a function, or a group of commands."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "init": Entry(
        "init",
        "init",
        "Set up the state folder and show the first admin key, this once. A second run changes nothing.",
    ),
    "serve": Entry(
        "serve", "serve", "Serve until SIGTERM or Ctrl-C; then finish what is under way and stop."
    ),
    "demo": Entry(
        "demo",
        "demo",
        "Show the gateway at work, on a made-up cache with made-up tenants. Needs no set-up, leaves nothing.",
    ),
    "tenants": Entry(
        "tenants",
        "commands",
        "Tenants: create, list, show, suspend, resume, degraded, image-hosts, allow, disallow, remove, "
        "restore, removed.",
    ),
    "keys": Entry("keys", "commands", "Keys: create, list, show, change, rotate, disable, revoke, report."),
    "bindings": Entry(
        "bindings", "commands", "Bindings of outside issuers' subjects: list, show, revoke, forget."
    ),
    "tokens": Entry("tokens", "commands", "Keys that sign access tokens: rotate, list."),
    "models": Entry(
        "models",
        "commands",
        "Models: own, disown, move, publish, unpublish, alias, unalias, group, ungroup, list, show.",
    ),
    "grants": Entry("grants", "commands", "Grants: add, remove, list."),
    "policy": Entry("policy", "commands", "Rules and policy documents: check, test, diff, apply."),
    "directory": Entry("directory", "commands", "The facts as a whole: show, accept, group, export, import."),
    "explain": Entry(
        "explain",
        "explain",
        "Say whether a key may have something, and why; or explain a record of the audit log.",
    ),
    "audit": Entry(
        "audit.group", "commands", "The audit log: verify, tail, search, follow, prove, keep, consumers."
    ),
    "cache": Entry("cache", "commands", "The cache's content: verify, status, release, resolutions, attest."),
    "connect": Entry(
        "connect",
        "connect",
        "Print what a tenant sets to use this gateway: with the engine, curl and Python.",
    ),
    "doctor": Entry(
        "doctor",
        "doctor",
        "Check every setting and dependency of the gateway. Exit status 1 when something has to be repaired.",
    ),
}


def register(app: typer.Typer, name: str) -> None:
    """Import one command, and register it with an application."""
    entry = COMMANDS[name]
    found = getattr(import_module(f"gateway.cli.{entry.module}"), entry.attribute)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name)
    else:
        app.command(name)(found)


def register_lines(app: typer.Typer) -> None:
    """Register every command by its line of help alone: enough to print the help, or to miss a name."""
    for name, entry in COMMANDS.items():
        app.command(name, help=entry.help)(_nothing)


def _nothing() -> None:
    """Stands for a command that is not imported."""
