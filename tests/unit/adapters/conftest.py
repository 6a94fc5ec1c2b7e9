"""A real embedded Valkey for each test process, empty at the start of each test that asks for it."""

from __future__ import annotations

import socket
from urllib.parse import unquote, urlsplit

import pytest

from gateway.adapters.embedded_valkey import EmbeddedValkey


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
