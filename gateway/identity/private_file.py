"""Private files: what only the gateway's user may read, written once and never over another.

A file gets its name only once it is whole and on disk: half a key in its place would stop every start,
and one that replaced another would take along what was signed or hashed under the old one. One that
others may read, or that is no regular file, stops the start. No message repeats what a file holds (I8).

What the bytes are is for whoever asks: secrets (`secret_file.py`), the audit log's signing key.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from gateway.model.errors import Conflict, Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

_MAX_FILE_BYTES = 4096  # a key in PEM is a few hundred; whatever is longer is something else


def write_once(path: Path, content: bytes) -> None:
    """Write a new file, 0600; makes the folder, 0700, if it is missing.

    Raises `Conflict` when there is one already, also for the second of two commands that race for it.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)  # not its parents: they would be open to others
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)  # never over another, unlike a rename
        finally:
            unfinished.unlink()
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already") from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be made: {error.strerror}") from error


def load_private(path: Path) -> bytes:
    """What a file holds, up to some bytes beyond what it may. Raises `Misconfigured`."""
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(str(path), "is not a regular file")
            if mode & 0o077:
                why = f"is open to others (mode {mode & 0o7777:04o}): run `chmod 600 {path}`"
                raise Misconfigured(str(path), why)
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror}); run `cachegate init`") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
