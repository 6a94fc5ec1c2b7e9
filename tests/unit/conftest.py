"""What unit tests share: a loop with a clock of its own, a real Valkey, an installation and its commands."""

from __future__ import annotations

import asyncio
import json
import selectors
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.sample_cache import write_sample_cache
from gateway.cli.main import run
from gateway.demo.world import MODELS, SETTINGS_FILE, DemoWorld, build_world, demo_settings
from tests.record_schema import findings_in

if TYPE_CHECKING:
    from gateway.configuration.settings import Settings


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would wait for its next timer, its clock is put forward to it instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is left: something outside has to happen, or the test hangs
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, which jumps to the next timer as soon as nothing else is left to do.

    A test on it sleeps and times out in the order that its numbers say, however busy the machine is, and
    takes no time. For code that waits for timers, tasks and events of its own loop only: work of a thread or
    of another process is nothing that this clock waits for.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture(scope="session")
def anyio_backend():
    """Coroutines that are tests run on asyncio, as the gateway does."""
    return "asyncio"


@pytest.fixture
def virtual_time():
    """What a module's `anyio_backend` returns to run its tests on such a loop."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def run_in_virtual_time():
    """`asyncio.run` on such a loop."""

    def run(main):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main)

    return run


@pytest.fixture(scope="session")
def shared_valkey_url(tmp_path_factory):
    with EmbeddedValkey(tmp_path_factory.mktemp("state")).running() as url:
        yield url


@pytest.fixture
def tell():
    """Sends one inline command to the server behind a unix URL and returns the start of its answer."""

    def send(url: str, command: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(unquote(urlsplit(url).path))
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096)

    return send


@pytest.fixture
def valkey_url(shared_valkey_url, tell):
    """A real server without facts: one for each test process, emptied before each test."""
    assert tell(shared_valkey_url, "FLUSHALL") == b"+OK\r\n"
    return shared_valkey_url


@pytest.fixture
async def store(valkey_url):
    store = RedisStore(valkey_url)
    yield store
    await store.close()


class ClockBesideFiles:
    """Clocks that the test sets. The time of day is a minute later than that of files just written."""

    def __init__(self):
        self.wall = time.time() + 60  # noqa: TID251 -- it is compared with the times of files
        self.steady = 100.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.steady


@dataclass(frozen=True)
class Installed:
    """An installation's state folder, and what is in it."""

    folder: Path
    settings: Settings
    world: DemoWorld

    def key_id(self, name: str) -> str:
        return self.world.keys[name].key_id


@pytest.fixture(scope="session")
def copy_of_demo(tmp_path_factory):
    """Makes an installation with the demo's facts in an empty folder: made once, and copied from then on."""
    origin = tmp_path_factory.mktemp("demo")
    world = asyncio.run(build_world(demo_settings(origin)))

    def copy(folder: Path) -> Installed:
        settings = demo_settings(folder)
        shutil.copytree(demo_settings(origin).state, settings.state)
        write_sample_cache(settings.cache_root, MODELS)  # its links name the folder that they are in
        return Installed(folder, settings, world)

    return copy


@pytest.fixture(scope="session")
def installed(copy_of_demo):
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    made = copy_of_demo(folder)
    settings = made.settings
    yield made
    assert next(findings_in(settings.audit_folder), None) is None
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
