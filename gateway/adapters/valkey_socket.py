"""Talking to a Valkey server on a unix socket without a client: is it there, and please stop.

Starting and stopping are plain, blocking and rare; two inline commands need no library. The socket
lies in a folder that only its user can enter (`model/trusted_files.py`), so whoever listens on it is
that user's own server.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from hashlib import sha256
from pathlib import Path

from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import make_own_folder

MAX_SOCKET_PATH_BYTES = 107  # sockaddr_un holds 108 with the closing NUL
_REPLY_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


def socket_path_for(folder: Path) -> Path:
    """Where the server of this folder listens: in it, or in a short private folder if its path is too long.

    The short folder's name follows from the long one's, so that all who share a state folder agree
    on it; it is checked as the long one is, since anybody can make folders in a temporary directory.
    """
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    mark = sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"cachegate-{os.geteuid()}-{mark}"
    make_private_folder(short)
    path = short / "valkey.sock"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise Misconfigured(str(folder), "this path and TMPDIR are both too long for a unix socket")
    return path


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its user can enter, or see that an existing one is just that."""
    try:
        make_own_folder(folder)
    except OSError as error:
        raise Misconfigured(str(folder), f"the folder cannot be made: {error.strerror}") from error


def is_answering(path: Path) -> bool:
    """Whether a server answers here and is ready; one that still loads its data is not."""
    return _ask(path, b"PING\r\n").startswith(b"+PONG")


def is_loading(path: Path) -> bool:
    """Whether a server answers here that it still loads its data from disk: it needs more time."""
    return _ask(path, b"PING\r\n").startswith(b"-LOADING")


def ask_to_stop(path: Path) -> None:
    """Ask the server to write what it has and end; whether it did is seen elsewhere."""
    _ask(path, b"SHUTDOWN\r\n")


def find_listener(path: Path) -> int | None:
    """A descriptor (pidfd) of the process that listens here, if it is one of our own user.

    The kernel says who listens, so no pid file can be stale or forged; a pidfd cannot come to mean
    another process.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_REPLY_SECONDS)
            connection.connect(os.fspath(path))
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            process, user, _ = _CREDENTIALS.unpack(raw)
            return os.pidfd_open(process) if user == os.geteuid() else None
    except OSError:
        return None


def _ask(path: Path, command: bytes) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_REPLY_SECONDS)
            connection.connect(os.fspath(path))
            connection.sendall(command)
            return connection.recv(256)
    except OSError:
        return b""
