"""A real installation for the commands: the demo's world, with its tenants, keys, cache and audit log."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateway.cli.demo_world import SETTINGS_FILE, World, build_world, demo_settings
from gateway.cli.main import run

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings


@dataclass(frozen=True)
class Installed:
    """Where it is, and what is in it."""

    folder: Path
    settings: Settings
    world: World

    def key_id(self, name: str) -> str:
        return self.world.keys[name].key_id


@pytest.fixture(scope="session")
def installed():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    settings = demo_settings(folder)
    yield Installed(folder, settings, asyncio.run(build_world(settings)))
    shutil.rmtree(folder)


@pytest.fixture
def command(installed, monkeypatch, capsys):
    """Run a command within the installation; gives its status, its output and its messages."""
    monkeypatch.setenv("CACHEGATE_CONFIG", str(installed.folder / SETTINGS_FILE))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


@pytest.fixture
def command_json(command):
    """The same with --json; gives its status and what it printed."""

    def call(*arguments: str) -> tuple[int, Any]:
        status, out, err = command(*arguments, "--json")
        assert out, err
        return status, json.loads(out)

    return call
