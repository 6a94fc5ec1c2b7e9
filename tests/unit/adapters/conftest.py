"""Fixtures with servers of Valkey and Redis that are not the embedded one."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
import redis
import redis.asyncio

from gateway.adapters.valkey_program import find_program
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def raw(valkey_url):
    """A client of the same server that bypasses the store."""
    client = redis.asyncio.Redis(unix_socket_path=unquote(urlsplit(valkey_url).path))
    yield client
    await client.aclose()


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
    port = free_port()
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
