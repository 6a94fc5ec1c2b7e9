"""Starts, shares and stops the embedded Valkey server, which is used when no Redis URL is configured.

`serve` and any number of commands share one server in the state folder, on a unix socket that only their user
can open. No process owns the server: it outlives the process that started it, and the last user stops it.
Three file locks guarantee this, whichever process is killed and when:

    start.lock    held while a process starts or stops the server: one at a time
    users.lock    held shared by every user of the server; a process that gets it exclusively is the last user
    server.lock   inherited by the server and never released: it is locked exactly as long as a server lives,
                  so that two servers never write to one append-only file

The kernel releases a lock when its holder dies, so nothing has to be cleaned up after `kill -9`. The next
user finds and shares a server that was left running, and stops it if it is then the last user. A process that
uses the server for long runs `watched`, which restarts a server that died.

Every change is on disk before it is acknowledged (`appendfsync always`). Non-goals: the Redis protocol
(`redis_store.py`), and file systems without `flock`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.adapters.valkey_program import LOG_NAME, spawn_valkey
from gateway.adapters.valkey_socket import (
    ask_to_stop,
    find_listener,
    is_answering,
    is_loading,
    make_private_folder,
    socket_path_for,
)
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.file_lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

_START_SECONDS = 15.0  # loading a large append-only file takes several seconds
_POLL_SECONDS = 0.003  # the server is up after about 40 ms; one poll costs microseconds
_WATCH_SECONDS = 0.5  # each check is one `open` and one `flock`; requests fail while the server is down
_LOG_LINES_SHOWN = 5

logger = logging.getLogger(__name__)


class EmbeddedValkey:
    """The embedded server of one state folder."""

    def __init__(self, state: Path, *, stop_seconds: float = 10.0) -> None:
        self.folder = state.absolute() / "valkey"
        self.stop_seconds = stop_seconds

    def running(self) -> RunningValkey:
        """Return a sync or async context manager within which the server runs. It yields the server's URL."""
        return RunningValkey(self)


class RunningValkey:
    """One use of the server by this process."""

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
            # The thread cannot be interrupted: let it finish, then close.
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
        """Register as a user of the server, and start it if it does not run. Returns its URL."""
        make_private_folder(self._folder)
        self._socket = socket_path_for(self._folder)
        deadline = time.monotonic() + _START_SECONDS
        with FileLock(self._folder / "start.lock") as starting:
            starting.wait_alone(deadline)
            users = FileLock(self._folder / "users.lock")
            try:
                users.is_shared()  # cannot fail: only a holder of start.lock takes it exclusively
                self._ensure_running(deadline)
            except BaseException:
                users.close()
                raise
            self._users = users
        return f"unix://{quote(str(self._socket))}"

    def close(self) -> None:
        """Stop using the server, and stop it if there is no other user. A second call does nothing."""
        users, self._users = self._users, None
        if users is None:
            return
        deadline = time.monotonic() + self._server.stop_seconds
        with users, FileLock(self._folder / "start.lock") as starting:
            try:
                starting.wait_alone(deadline)
            except Unavailable:
                return  # another process has held start.lock for long: it is starting or stopping the server
            if users.is_taken_alone():
                self._stop(deadline)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A context within which a server that dies is restarted. For a process that has the server open.

        A server that was killed or ran out of memory has all acknowledged changes on disk and loads them
        again.
        """
        stopped = threading.Event()
        watch = threading.Thread(target=self._watch, args=[stopped], name="valkey-watch", daemon=True)
        watch.start()
        try:
            yield
        finally:
            stopped.set()
            watch.join()

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(_WATCH_SECONDS):
            try:
                if not self._is_alive():
                    self._revive()
            except (Unavailable, Misconfigured) as failure:
                logger.error("the embedded Valkey died and could not be started again: %s", failure)  # noqa: TRY400 -- one line; the failure says all
            except Exception:  # anything: no other thread restarts the server
                logger.exception("the embedded Valkey could not be looked after")

    def _revive(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        with FileLock(self._folder / "start.lock") as starting:
            starting.wait_alone(deadline)
            if self._is_alive():
                return  # another process has restarted it
            self._ensure_running(deadline)
        logger.error("the embedded Valkey had died and was started again")

    def _ensure_running(self, deadline: float) -> None:
        """Wait until the server answers. Start it, at most once, if none lives.

        A server that lives but does not answer yet may have been started by a process that was killed
        meanwhile.
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
                # A server that is loading needs more time; a second probe would not help, and the next user
                # finds it.
                if is_loading(self._socket):
                    raise self._failure("it is still loading its data, try again in a moment")
                raise self._failure(f"it does not answer on {self._socket}")
            time.sleep(_POLL_SECONDS)

    def _start(self, lock_descriptor: int) -> None:
        try:
            status = spawn_valkey(self._folder, self._socket, lock_descriptor)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._failure("its program could not be run") from error
        if status != 0:
            raise self._failure(f"its program ended with status {status}")

    def _stop(self, deadline: float) -> None:
        listener = find_listener(self._socket)
        try:
            ask_to_stop(self._socket)
            while self._is_alive():
                if time.monotonic() >= deadline:
                    # The server hangs. Killing it loses nothing: what it acknowledged is on disk.
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
            lines = (self._folder / LOG_NAME).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        shown = " | ".join(lines[-_LOG_LINES_SHOWN:])
        return Unavailable(
            "valkey",
            f"the embedded server did not start: {what}; its log ends: {shown or '(empty)'}; "
            f"look at {self._folder}, or set CACHEGATE_REDIS_URL to use another server",
        )
