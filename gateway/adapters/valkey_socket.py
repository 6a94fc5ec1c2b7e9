"""Probes and stops a Valkey server over its unix socket, without a client library.

Starting and stopping are blocking and rare; two inline commands need no library. The socket is in a folder
that only its user can enter (`model/trusted_files.py`), so the process that listens on it belongs to that
user.
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
    """Return the socket's path: in this folder, or in a short private folder if the path is too long.

    The short folder's name is derived from the long one, so that all processes that share a state folder
    agree on it. It is checked like the long one, since anybody can make folders in a temporary directory.
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
    """Make a folder that only its user can enter, or verify that an existing one is such a folder."""
    try:
        make_own_folder(folder)
    except OSError as error:
        raise Misconfigured(str(folder), f"the folder cannot be made: {error.strerror}") from error


def is_answering(path: Path) -> bool:
    """Whether a server answers here and is ready; one that still loads its data is not."""
    return _ask(path, b"PING\r\n").startswith(b"+PONG")


def is_loading(path: Path) -> bool:
    """Whether a server answers here that it still loads its data from disk and needs more time."""
    return _ask(path, b"PING\r\n").startswith(b"-LOADING")


def ask_to_stop(path: Path) -> None:
    """Ask the server to save its data and end; the caller checks whether it did."""
    _ask(path, b"SHUTDOWN\r\n")


def find_listener(path: Path) -> int | None:
    """Return a descriptor (pidfd) of the process that listens here, if it belongs to our own user.

    The kernel says who listens, so unlike a pid file this cannot be stale or forged; a pidfd never refers to
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
