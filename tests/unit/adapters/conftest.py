"""Fixtures with real Valkey servers: one embedded server per test process, emptied before each test."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import redis

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.valkey_program import find_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def anyio_backend():
    return "asyncio"


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
    assert tell(shared_valkey_url, "FLUSHALL") == b"+OK\r\n"
    return shared_valkey_url


@dataclass
class TcpValkey:
    """A Valkey on TCP, with ACL users defined by the test."""

    port: int
    process: subprocess.Popen[bytes]

    def client(self, **more: Any) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=10, **more)

    def set_user(self, name: str, *rules: str) -> None:
        with self.client(username="admin", password="admin") as client:
            client.execute_command("ACL", "SETUSER", name, *rules)


def start_tcp_valkey(folder: Path, *lines: str) -> TcpValkey:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "valkey.conf"  # a file: a Sentinel rewrites its own
    users = ("user admin on >admin ~* &* +@all",)
    configuration.write_text("\n".join(("bind 127.0.0.1", f"port {port}", 'save ""', *users, *lines)) + "\n")
    options = ["--sentinel"] if any(line.startswith("sentinel ") for line in lines) else []
    with (folder / "valkey.log").open("wb") as log:
        process = subprocess.Popen(
            [find_program(), configuration, *options], stdout=log, stderr=log, cwd=folder
        )
    found = TcpValkey(port, process)
    deadline = time.monotonic() + 20
    while True:
        with suppress(redis.RedisError), found.client(username="admin", password="admin") as client:
            client.ping()
            return found
        assert time.monotonic() < deadline, (folder / "valkey.log").read_text()
        time.sleep(0.01)


@pytest.fixture
def new_tcp_valkey(tmp_path):
    """Start Valkeys with these lines of configuration."""
    started = []

    def start(*lines: str) -> TcpValkey:
        folder = tmp_path / f"valkey-{len(started)}"
        folder.mkdir()
        started.append(start_tcp_valkey(folder, *lines))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
