"""What all tests share: the network is loopback only, and a gateway is a real process.

An `Installation` is a state folder, a cache and the command; `serve` starts `cachegate serve` as an
operator would, on a real Valkey, with real workers. `Wire` speaks to it in raw bytes, because what
client libraries tidy up is what attackers do not; a `Conversation` is one connection that is kept.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from unittest.mock import patch

import pytest
import redis
import structlog
from hypothesis import HealthCheck, is_hypothesis_test, settings

from tests.answer import Answer
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

# Nothing of `gateway` is imported up here: a package that does not import fails its own tests and no others.

# How long an example takes says how busy the machine is, and nothing about the law that it is for.
settings.register_profile(
    "all examples", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("some examples", settings.get_profile("all examples"), max_examples=25)

SLOW_FOLDERS = ("faults", "freshness", "proxies")
"""Servers that are killed, stopped and started again, test by test: minutes, for `make test-all` and CI."""


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are processors: tests wait for servers and timers a third of their time.

    Not where slow tests run: they load servers and workers, and keep all processors busy by themselves.
    """
    return (yield) + _is_short(config)


def _is_short(config: pytest.Config) -> bool:
    """Whether this is `make test`, which leaves out what is slow and tries laws with fewer examples."""
    return "not slow" in config.option.markexpr


@pytest.hookimpl(tryfirst=True)  # the plugins whose hook this is as well collect, and return what they found
def pytest_collection(session):
    """Collect without the garbage collector, and let each worker of xdist begin at another module.

    A module that was never imported is compiled with its assertions rewritten: for all, half a minute of CPU,
    in every worker. The result is kept in a file. Workers that all began at the first module would each write
    all of them; this way, each writes a share and reads those of the others.
    """
    gc.disable()  # sixteen thousand tests are made, and none of them is garbage
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    here = Path(__file__).parent
    modules = sorted(
        ".".join(path.relative_to(here.parent).with_suffix("").parts) for path in here.rglob("test_*.py")
    )
    first = len(modules) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for name in modules[first:] + modules[:first]:
        with suppress(
            BaseException
        ):  # a module that skips itself or fails says so again when it is collected
            importlib.import_module(name)


def pytest_collection_finish():
    gc.enable()
    gc.freeze()  # what there is stays: a collection need not look at it again


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.law)
        # `endless.py` is what `test_process_guard.py` has `make test` run, and ends.
        if item.path.relative_to(here).parts[0] in SLOW_FOLDERS and item.path.name != "endless.py":
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter, config):
    if _is_short(config):
        terminalreporter.write_line(
            "Left out: tests that are slow or need root, and three quarters of the examples of each law "
            "(make test-all); tests with the real engine (make test-engine) or the real inference server "
            "(make test-server)."
        )


PATIENCE_SECONDS = 90.0
"""For what comes within three seconds on an idle machine: it ends a test that would hang, and says why."""

LOOPBACK = (
    "127.",
    "::1",
    "localhost",
    "192.0.2.",  # for documentation (RFC 5737): only the network namespaces of a test have these addresses
)
_connect = socket.socket.connect


def _connect_to_loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
        raise AssertionError(f"a test tried to reach {address[0]}: the network is off but for loopback")
    _connect(self, address)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """No server outlives the tests that started it, however they end: see `process_guard.py`."""
    settings.load_profile("some examples" if _is_short(config) else "all examples")
    is_worker = hasattr(config, "workerinput")  # of xdist: its controller is under guard
    if sys.platform == "linux" and not is_worker and threading.active_count() == 1:
        specification = importlib.util.spec_from_file_location(
            "process_guard", Path(__file__).parent / "process_guard.py"
        )
        guard = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(guard)
        guard.stand_guard()


@pytest.fixture(autouse=True, scope="session")
def _network_is_off():
    socket.socket.connect = _connect_to_loopback_only  # type: ignore[method-assign]
    yield
    socket.socket.connect = _connect  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _programs_hear_ctrl_c():
    """Where the tests themselves run in the background of a shell, it is ignored, and that is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Answers:
    """Answers as they come in on one connection, one after the other; what is read early is kept."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def next(self, *, is_head: bool = False) -> Answer:
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                raise ConnectionError(f"the connection ended within the headers: {self._received[:200]!r}")
        status_line, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        headers = tuple(
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        length = next((int(value) for name, value in headers if name == "content-length"), None)
        wanted = 0 if is_head else length
        while wanted is None or len(self._received) < wanted:
            if not self._receive():
                break
        body = bytes(self._received[:wanted])
        del self._received[:wanted]
        return Answer(int(status_line.split()[1]), headers, body)

    def has_ended(self) -> bool:
        """Whether the server closes without another byte."""
        return not self._received and not self._receive()

    def _receive(self) -> bool:
        try:
            piece = self._connection.recv(1 << 20)
        except ConnectionResetError:
            return False
        self._received += piece
        return bool(piece)


def request_bytes(
    method: str,
    path: str | bytes,
    key: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    *,
    host: str = "gateway",
    is_last: bool = False,
) -> bytes:
    """A request in the bytes that a plain client would send."""
    target = path if isinstance(path, bytes) else path.encode()
    lines = [f"{method} ".encode() + target + b" HTTP/1.1", b"Host: " + host.encode()]
    if is_last:
        lines.append(b"Connection: close")
    if key is not None:
        lines.append(b"Authorization: Bearer " + key.encode())
    lines += [f"{name}: {value}".encode("latin-1") for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@dataclass(frozen=True)
class Wire:
    """A raw HTTP client: sends the bytes it is given, on a connection of their own."""

    host: str
    port: int

    def connect(self, timeout: float = 15.0) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def send(self, raw: bytes, *, is_head: bool = False, timeout: float = 15.0) -> Answer:
        with self.connect(timeout) as connection:
            # An early refusal closes while we still send; the answer is there to be read.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            return self.read(connection, is_head=is_head)

    def request(
        self,
        method: str,
        path: str | bytes,
        key: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        host: str = "gateway",
    ) -> Answer:
        raw = request_bytes(method, path, key, headers, host=host, is_last=True)
        return self.send(raw, is_head=method == "HEAD")

    def get(self, path: str | bytes, key: str | None = None, **more: Any) -> Answer:
        return self.request("GET", path, key, **more)

    def head(self, path: str | bytes, key: str | None = None, **more: Any) -> Answer:
        return self.request("HEAD", path, key, **more)

    def talk(self, timeout: float = 15.0) -> Conversation:
        return Conversation(self, timeout)

    @staticmethod
    def read(connection: socket.socket, *, is_head: bool = False) -> Answer:
        return Answers(connection).next(is_head=is_head)


class Conversation:
    """One connection, kept for one request after another; made anew only when the server closed it."""

    def __init__(self, wire: Wire, timeout: float) -> None:
        self._wire = wire
        self._timeout = timeout
        self._open()

    def _open(self) -> None:
        self._connection = self._wire.connect(self._timeout)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = Answers(self._connection)

    def request(
        self,
        method: str,
        path: str | bytes,
        key: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        raw = request_bytes(method, path, key, headers)
        self._connection.sendall(raw)
        answer = self._answers.next(is_head=method == "HEAD")
        if answer.header("connection") == "close":
            self._connection.close()
            self._open()
        return answer

    def get(self, path: str | bytes, key: str | None = None, **more: Any) -> Answer:
        return self.request("GET", path, key, **more)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Installation:
    """A state folder, a cache and the command: what an operator has.

    A command is a process of its own, or, with `runs_here`, a call in this one: starting Python and importing
    the program takes a hundred times as long as most commands do.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    admin_key: str = ""
    runs_here: bool = False

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
        done = (self._call if self.runs_here else self._spawn)(arguments, text)
        if status is not None:
            assert done.returncode == status, f"cachegate {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done

    def _spawn(self, arguments: Sequence[str], text: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env=self.variables(),
            cwd=self.folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def _call(self, arguments: Sequence[str], text: str | None) -> subprocess.CompletedProcess[str]:
        """The same in this process: its environment, working folder and streams, and a loop of its own."""
        from gateway.cli.main import run  # noqa: PLC0415 -- see above

        given = io.TextIOWrapper(io.BytesIO((text or "").encode()), "utf-8")
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        logs = structlog.get_config()
        try:
            with (
                patch.dict(os.environ, self.variables(), clear=True),  # noqa: TID251 -- the command's own
                patch.object(sys, "stdin", given),
                chdir(self.folder),
                redirect_stdout(out),
                redirect_stderr(err),
            ):
                status = run(arguments)
        finally:
            structlog.configure(**logs)
        said = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return subprocess.CompletedProcess(arguments, status, *said)

    def json(self, *arguments: str, status: int | None = 0, text: str | None = None) -> Any:
        done = self.run(*arguments, "--json", status=status, text=text)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            raise AssertionError(
                f"cachegate {' '.join(arguments)} printed no JSON:\n{done.stdout}\n{done.stderr}"
            ) from None

    def variables(self) -> dict[str, str]:

        environ = os.environ  # noqa: TID251
        inherited = {name: value for name, value in environ.items() if not name.startswith("CACHEGATE_")}
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

    def in_session(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """Run work in the session that a command would open: what takes forty commands takes a moment."""
        from gateway.configuration.sources import load_settings  # noqa: PLC0415
        from gateway.operations.session import open_session  # noqa: PLC0415 -- see above

        async def run() -> Any:
            async with open_session(load_settings(self.variables())) as session:
                return await work(session)

        return asyncio.run(run())

    def redis(self) -> redis.Redis:
        """A client of the embedded server of its own, to look at facts and to break them."""
        from gateway.adapters.valkey_socket import socket_path_for  # noqa: PLC0415 -- see above

        return redis.Redis(unix_socket_path=str(socket_path_for(self.state / "valkey")), socket_timeout=10)

    def records(self) -> list[dict[str, Any]]:
        """Every audit record, read as the plain JSON that it is; of each chain in its order."""
        segments = sorted(path for path in self.audit.glob("*.jsonl") if path.name != "heads.jsonl")
        # What follows the last line end is a record that is being written just now.
        lines = (line for path in segments for line in path.read_bytes().split(b"\n")[:-1])
        return [json.loads(line) for line in lines]

    def outcome_of(self, record_id: str) -> dict[str, Any]:
        """How a read ended. It is recorded after the last byte, so that a client may be here before it."""
        found = wait_until(lambda: [one for one in self.records() if one.get("decision_id") == record_id])
        assert len(found) == 1, found
        return found[0]

    def verify_audit(self) -> None:
        """The audit log as a whole is what was written."""
        from gateway.audit import verify  # noqa: PLC0415 -- see above

        report = verify(self.audit)
        assert report.is_intact, report

    def init(self) -> Installation:
        """In this process: what `init` does as a process is for the tests of it."""
        self.admin_key = replace(self, runs_here=True).json("init")["admin_key"]
        return self

    def serve(self, *, workers: int = 1, is_awaited: bool = True) -> RunningGateway:
        return RunningGateway.start(self, workers, is_awaited=is_awaited)


@contextmanager
def as_user(uid, gid=None):
    """Be another user for a moment, with no group but this; for tests that run as root."""
    gid = uid if gid is None else gid
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


PORT_ATTEMPTS = 3


def _command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return b""


@dataclass
class RunningGateway:
    """A served installation."""

    installation: Installation
    process: subprocess.Popen[str]
    wire: Wire
    ops: Wire
    admin: Wire

    @classmethod
    def start(cls, installation: Installation, workers: int, *, is_awaited: bool = True) -> RunningGateway:
        for attempt in range(PORT_ATTEMPTS):
            port, ops_port, admin_port = free_port(), free_port(), free_port()
            with (installation.folder / "serve.log").open("a") as log:
                process = cls._spawn(installation, port, ops_port, admin_port, workers, log)
            wires = [Wire("127.0.0.1", one) for one in (port, ops_port, admin_port)]
            running = cls(installation, process, *wires)
            if not is_awaited:
                break
            try:
                running.await_ready()
            except BaseException:
                running.stop()
                # Between asking for a free port and listening on it, another test's server may take it.
                if attempt + 1 == PORT_ATTEMPTS or "is in use" not in running.log():
                    raise
            else:
                break
        return running

    @staticmethod
    def _spawn(
        installation: Installation, port: int, ops_port: int, admin_port: int, workers: int, log: IO[str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--host", "127.0.0.1", "--port", str(port),
             "--ops-port", str(ops_port), "--admin-port", str(admin_port), "--workers", str(workers)],
            env=installation.variables(),
            cwd=installation.folder,
            stdout=log,
            stderr=log,
            text=True,
        )  # fmt: skip

    def await_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log()}")
            with suppress(OSError):
                if self.is_ready():
                    return
            time.sleep(0.05)
        raise AssertionError(f"serve was not ready within {seconds} s:\n{self.log()}")

    def is_ready(self) -> bool:
        return self.ops.get("/readyz").status == 200

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as Prometheus would read it."""
        lines = self.ops.get("/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def worker_pids(self) -> list[int]:
        """The workers: the processes that serve started and that run now."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if b"gateway.server.worker" in _command_of(child)]

    def log(self) -> str:
        return (self.installation.folder / "serve.log").read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def verify_schema(installation: Installation) -> None:
    """Every record that a test had written is of the published schema."""
    from tests.record_schema import findings_in  # noqa: PLC0415 -- see above

    assert next(findings_in(installation.audit), None) is None


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What `init` leaves, made once: a test that only needs it gets a copy, which costs a hundredth."""
    folder = tmp_path_factory.mktemp("initialised")
    (folder / "cache").mkdir()
    return Installation(folder).init()


def copied(initialised: Installation, folder: Path, *, runs_here: bool = False) -> Installation:
    """An installation in an empty folder, as if `init` had just been run there."""
    shutil.copytree(initialised.folder, folder, dirs_exist_ok=True)
    return Installation(folder, admin_key=initialised.admin_key, runs_here=runs_here)


@pytest.fixture
def installation(initialised: Installation, tmp_path: Path) -> Iterator[Installation]:
    """A fresh installation, initialised, with an empty cache."""
    installation = copied(initialised, tmp_path)
    yield installation
    verify_schema(installation)


@pytest.fixture
def installation_here(initialised: Installation) -> Iterator[Installation]:
    """The same, whose commands are calls in this process and share one Valkey, which runs for the test."""
    from gateway.adapters.embedded_valkey import EmbeddedValkey  # noqa: PLC0415 -- see above

    # Short and always as long, because tables are as wide as the paths in them.
    folder = Path(tempfile.mkdtemp(prefix="cg-test-", dir="/tmp"))
    try:
        installation = copied(initialised, folder, runs_here=True)
        with EmbeddedValkey(installation.state).running():
            yield installation
        verify_schema(installation)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_installation(tmp_path_factory: pytest.TempPathFactory):
    """Make installations that outlive a single test. Their commands are calls in this process."""

    made: list[Installation] = []

    def make(name: str, **environment: str) -> Installation:
        folder = tmp_path_factory.mktemp(name)
        (folder / "cache").mkdir()
        made.append(Installation(folder, environment, runs_here=True).init())
        return made[-1]

    yield make
    for installation in made:
        verify_schema(installation)


def wait_until(ask, seconds=PATIENCE_SECONDS):
    """Wait until something holds; what it last was is in the failure. No time that says anything about it."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds} s; last: {answer!r}"
        time.sleep(0.02)
    return answer


@pytest.fixture(scope="session")
def eventually():
    return wait_until


@pytest.fixture(scope="session")
def new_wire():
    """A client of a port that nobody else has."""

    def make() -> Wire:
        return Wire("127.0.0.1", free_port())

    return make
