"""Properties that every command has."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

# A command that logs in each way that the code logs in, and prints JSON. In a process of its own, since
# logging is configured once in a process.
PROGRAM = """
import logging
import sys
import warnings

import structlog

from gateway.terminal.console import AsJson, print_json
from gateway.cli.main import app, main


@app.command("log")
def log(as_json: AsJson = False) -> None:
    structlog.get_logger("cachegate").info("an event")
    structlog.get_logger("cachegate").warning("a warning", model="acme/cars/1")
    logging.getLogger("gateway.server.supervisor").error("an error")
    warnings.warn("a deprecation")
    print_json({"answer": as_json})


main(["log", "--json"])
"""


@pytest.mark.parametrize("line", ["an event", "a warning", "acme/cars/1", "an error", "a deprecation"])
def test_logs_of_a_command_go_to_standard_error_and_its_json_stays_whole(logging_command, line):
    assert json.loads(logging_command.stdout) == {"answer": True}
    assert line in logging_command.stderr


@pytest.fixture(scope="module")
def logging_command():
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("policy", "check", "--json"), 0),
        (("tenants", "list"), 0),
        (("tenants", "show", "nobody"), 1),
        (("policy", "apply", "--json"), 2),
        (("cache", "unheard-of"), 2),
    ],
)
def test_a_command_does_the_same_as_a_process_as_in_the_process_of_a_test(
    installation_here, arguments, status
):
    spawned = replace(installation_here, runs_here=False).run(*arguments, status=status)
    called = installation_here.run(*arguments, status=status)
    assert (spawned.stdout, spawned.stderr) == (called.stdout, called.stderr)
    assert spawned.stdout + spawned.stderr
