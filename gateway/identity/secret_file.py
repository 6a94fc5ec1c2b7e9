"""Secrets that an operator holds as files: made once, 0600, the same on every node, never in Redis.

    <state>/signing/links.key      64 lower-case hex digits and a newline: 32 random bytes

A file gets its name only once it is whole and on disk, and never replaces another: what was signed or
hashed under the old one would be lost. One that others may read, or that is no regular file, stops the
start. No message repeats what a file holds (I8).

What a secret is for is said by whoever loads it: peppers, link keys.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

from gateway.model.errors import Conflict, Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES = 32  # the output size of HMAC-SHA-256: more adds nothing, less would be the weakest part

_TEXT = re.compile(rb"([0-9a-f]{64})\n?")
_MAX_FILE_BYTES = 1024


def create_secret(path: Path) -> bytes:
    """Write a new random secret, 0600; makes the folder, 0700, if it is missing.

    When two commands race for one file, the second gets `Conflict`.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Misconfigured(str(path.parent), f"cannot be made: {error.strerror}") from error
    secret = secrets.token_bytes(SECRET_BYTES)
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret.hex().encode("ascii") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)  # never over another, unlike a rename
        finally:
            unfinished.unlink()
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise Conflict(f"{path} was made by somebody else just now") from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be written: {error.strerror}") from error
    return secret


def load_secret(path: Path) -> bytes:
    """The secret in a file. Raises `Misconfigured` when it is missing or not as it must be."""
    try:
        # O_NONBLOCK: a FIFO in the file's place must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise Misconfigured(str(path), "is not a regular file")
            if mode & 0o077:
                raise Misconfigured(
                    str(path), f"is open to others (mode {stat.S_IMODE(mode):04o}): run `chmod 600 {path}`"
                )
            raw_text = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read: {error.strerror}") from error
    match = _TEXT.fullmatch(raw_text)
    if match is None:
        raise Misconfigured(str(path), "expected 64 lower-case hex digits and nothing else")
    return bytes.fromhex(match[1].decode("ascii"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
