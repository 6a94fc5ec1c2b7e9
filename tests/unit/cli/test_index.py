"""The index of commands: the same as the commands themselves, and light to start with."""

from __future__ import annotations

import json
import subprocess
import sys
from inspect import getdoc

import pytest
import typer

from gateway.cli import commands
from gateway.cli.application import app
from gateway.cli.index import COMMANDS
from gateway.demo.world import SETTINGS_FILE

HEAVY = ("cedarpy", "cryptography.hazmat.bindings", "httpx", "jwt", "starlette", "structlog", "uvicorn")
PROGRAM = """
import json, sys
from gateway.cli.main import run

status = run(sys.argv[1:])
sys.stderr.write(json.dumps([status, sorted(sys.modules)]))
"""


def test_the_index_names_every_command_with_its_own_help():
    assert commands
    own = {one.name: getdoc(one.callback).splitlines()[0] for one in app.registered_commands}
    own |= {one.name: one.typer_instance.info.help for one in app.registered_groups}
    assert {name: entry.help for name, entry in COMMANDS.items()} == own


def test_the_index_lists_the_commands_in_their_order():
    assert [line for line in COMMANDS if line in typer.main.get_command(app).commands] == list(COMMANDS)


def imported_by(*arguments, environment=None):
    """What a command imported, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("keys", "list", "--help")])
def test_help_imports_nothing_that_is_heavy(arguments):
    status, modules = imported_by(*arguments)
    assert status == 0
    assert not modules.intersection(HEAVY)


def test_help_of_all_commands_imports_none_of_them():
    _, modules = imported_by("--help")
    assert not modules.intersection({"redis", "gateway.operations.session", "gateway.cli.keys"})


@pytest.mark.parametrize("command", ["list", "rotations", "report"])
def test_listing_keys_imports_nothing_that_is_heavy(installed, command):
    environment = {"CACHEGATE_CONFIG": str(installed.folder / SETTINGS_FILE)}
    status, modules = imported_by("keys", command, "--json", environment=environment)
    assert status == 0
    assert not modules.intersection({*HEAVY, "rich.console", "gateway.assembly.components"})


def complete(line):
    words = line.split(" ")
    environment = {
        "_CACHEGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    return done.stdout.split()


def test_a_shell_completes_commands_options_and_values():
    assert complete("cachegate key") == ["keys"]
    assert complete("cachegate keys rota") == ["rotate", "rotations"]
    assert "--overlap" in complete("cachegate keys rotate --")
    assert complete("cachegate keys list --state r") == ["revoked", "rotating"]


@pytest.mark.parametrize("name", sorted(one.name for one in commands.keys.commands.registered_commands))
def test_the_help_of_every_command_of_keys_has_an_example(name):
    [command] = [one for one in commands.keys.commands.registered_commands if one.name == name]
    assert f"Example: cachegate keys {name}" in getdoc(command.callback)
