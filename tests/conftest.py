"""What all tests share: the network is loopback only, and a gateway is a real process.

`gateway_process` starts `cachegate serve` as an operator would, on a real Valkey, with real
workers; `Wire` speaks to it in raw bytes, because what clients libraries tidy up is what attackers
do not.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = ("127.", "::1", "localhost")
_connect = socket.socket.connect


def _connect_to_loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
        raise AssertionError(f"a test tried to reach {address[0]}: the network is off but for loopback")
    _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def _network_is_off():
    socket.socket.connect = _connect_to_loopback_only  # type: ignore[method-assign]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]


@dataclass(frozen=True)
class Answer:
    """One HTTP response, as it stood on the wire."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        return json.loads(self.body)

    def comparable(self) -> tuple[object, ...]:
        """All that may not differ between "forbidden" and "absent": everything but time, trace and record id."""
        record = self.header("cachegate-record") or ""
        varying = {"date", "traceparent"}
        headers = tuple(
            (key, value.replace(record, "R")) for key, value in self.headers if key not in varying
        )
        return self.status, headers, self.body.replace(record.encode(), b"R")


@dataclass(frozen=True)
class Wire:
    """A raw HTTP client: sends the bytes it is given."""

    host: str
    port: int

    def send(self, raw: bytes, *, is_head: bool = False, timeout: float = 15.0) -> Answer:
        with socket.create_connection((self.host, self.port), timeout=timeout) as connection:
            try:
                connection.sendall(raw)
            except (BrokenPipeError, ConnectionResetError):
                pass  # an early refusal closes while we still send; the answer is there to be read
            return self.read(connection, is_head=is_head)

    def request(
        self,
        method: str,
        path: str | bytes,
        key: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        host: str = "gateway",
    ) -> Answer:
        target = path if isinstance(path, bytes) else path.encode()
        lines = [
            f"{method} ".encode() + target + b" HTTP/1.1",
            b"Host: " + host.encode(),
            b"Connection: close",
        ]
        if key is not None:
            lines.append(b"Authorization: Bearer " + key.encode())
        lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
        return self.send(b"\r\n".join(lines) + b"\r\n\r\n", is_head=method == "HEAD")

    def get(self, path: str | bytes, key: str | None = None, **more: Any) -> Answer:
        return self.request("GET", path, key, **more)

    def head(self, path: str | bytes, key: str | None = None, **more: Any) -> Answer:
        return self.request("HEAD", path, key, **more)

    @staticmethod
    def read(connection: socket.socket, *, is_head: bool = False) -> Answer:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError(f"the connection ended before the headers did: {received[:200]!r}")
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = tuple(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        length = next((int(value) for name, value in headers if name == "content-length"), None)
        while not is_head and (length is None or len(body) < length):
            piece = connection.recv(1 << 20)
            if not piece:
                break
            body += piece
        return Answer(int(status_line.split()[1]), headers, body)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Installation:
    """A state folder, a cache and the command: what an operator has."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    admin_key: str = ""

    @property
    def cache_root(self) -> Path:
        return self.folder / "cache"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def audit(self) -> Path:
        return self.state / "audit"

    def run(
        self, *arguments: str, status: int | None = 0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.variables(),
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"cachegate {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str, status: int | None = 0, text: str | None = None) -> Any:
        done = self.run(*arguments, "--json", status=status, text=text)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            raise AssertionError(
                f"cachegate {' '.join(arguments)} printed no JSON:\n{done.stdout}\n{done.stderr}"
            ) from None

    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CACHEGATE_")}
        return (
            inherited
            | {
                "CACHEGATE_STATE": str(self.state),
                "CACHEGATE_CACHE_ROOT": str(self.cache_root),
                "CACHEGATE_NODE": "test-node",
                "COLUMNS": "200",
            }
            | self.environment
        )

    def init(self) -> Installation:
        self.admin_key = self.json("init")["admin_key"]
        return self

    def serve(self, *, workers: int = 1) -> RunningGateway:
        return RunningGateway.start(self, workers)


@dataclass
class RunningGateway:
    """A served installation."""

    installation: Installation
    process: subprocess.Popen[str]
    wire: Wire
    ops: Wire

    @classmethod
    def start(cls, installation: Installation, workers: int) -> RunningGateway:
        port, ops_port = free_port(), free_port()
        log = (installation.folder / "serve.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--host", "127.0.0.1", "--port", str(port),
             "--ops-port", str(ops_port), "--workers", str(workers)],
            env=installation.variables(),
            cwd=installation.folder,
            stdout=log,
            stderr=log,
            text=True,
        )  # fmt: skip
        log.close()
        running = cls(installation, process, Wire("127.0.0.1", port), Wire("127.0.0.1", ops_port))
        running.await_ready()
        return running

    def await_ready(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log()}")
            try:
                if self.ops.get("/readyz").status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"serve was not ready within {seconds} s:\n{self.log()}")

    def log(self) -> str:
        return (self.installation.folder / "serve.log").read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=30)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """A fresh installation, initialised, with an empty cache."""
    (tmp_path / "cache").mkdir()
    return Installation(tmp_path).init()


@pytest.fixture(scope="session")
def new_installation(tmp_path_factory: pytest.TempPathFactory):
    """Make installations that outlive a single test."""

    def make(name: str, **environment: str) -> Installation:
        folder = tmp_path_factory.mktemp(name)
        (folder / "cache").mkdir()
        return Installation(folder, environment).init()

    return make
