"""What this node measured, in one SQLite file of the state folder: shared by its workers and commands.

A row is what a file held under one stat identity, found by device and inode; a newer identity takes
the place of the older one. It is a memory and no authority: what the fleet agreed on is in Redis, and
a node that loses this file hashes again. WAL, so that those who read wait for nobody; a crash of the
machine may cost the last rows, never the file.

`turn` is a lock file per inode, held by `flock`, so that one process at a time measures a file on
this node. It is removed by whoever had it, while it is still held, so that a hundred thousand blobs
do not leave as many empty files. Whoever locked a file that is no longer the one in the folder came
too late, and has to ask again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.pins import Measured
from gateway.model.trusted_files import make_own_folder, verify_trusted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.model.pins import StatIdentity

BUSY_SECONDS = 5.0  # how long a writer waits for another one; each writes for well below a millisecond
_POLL_SECONDS = 0.003

_PLACE, _VERSION = struct.Struct(">QQ"), struct.Struct(">Qqq")  # inode numbers use all 64 bits; SQLite has 63
_WIDE_BYTES = 16  # of each number of an identity that does not fit: nanoseconds after 2262 need 65 bits
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS measured (
        place BLOB PRIMARY KEY, version BLOB NOT NULL, md5 BLOB NOT NULL, sha256 BLOB NOT NULL
    ) WITHOUT ROWID
"""


class MeasurementFile:
    """`Measurements` on disk. Safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def find(self, identity: StatIdentity) -> Measured | None:
        """What was measured under exactly this identity."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT md5, sha256 FROM measured WHERE place = ? AND version = ?", _packed(identity)
            ).fetchone()
        return None if row is None else Measured(identity=identity, md5=row[0].hex(), sha256=row[1].hex())

    def put(self, measured: Measured) -> None:
        """Remember it in the place of what was known of that inode."""
        digests = bytes.fromhex(measured.md5), bytes.fromhex(measured.sha256)
        with self._opened() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?)", (*_packed(measured.identity), *digests)
            )

    @contextmanager
    def turn(self, identity: StatIdentity) -> Iterator[bool]:
        """Hold the lock of this file, if nobody else does."""
        path = self._folder / f"{identity[0]:x}-{identity[1]:x}.lock"
        try:
            make_own_folder(self._folder)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except (OSError, Misconfigured) as error:
            raise self._unusable(error) from error
        try:
            is_mine = self._is_locked(descriptor, path)
            try:
                yield is_mine
            finally:
                if is_mine:
                    with suppress(OSError):  # an empty file that stays locks nobody out
                        path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the file."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _is_locked(self, descriptor: int, path: Path) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return _is_same(descriptor, path)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                yield self._connection
            except (sqlite3.Error, OSError, Misconfigured) as error:
                raise self._unusable(error) from error

    def _connect(self) -> sqlite3.Connection:
        make_own_folder(self._folder)
        path = self._folder / "measured.sqlite"
        with suppress(FileNotFoundError):
            verify_trusted(path)
        connection = sqlite3.connect(
            path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # the mutex stands in for it
        )
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _unusable(self, error: Exception) -> Unavailable:
        why = f"{self._folder} cannot be used ({error}); if it is damaged, remove it: blobs are hashed again"
        return Unavailable("state", why, Reason.NOT_PINNED)


def _use_wal(connection: sqlite3.Connection) -> None:
    """All workers of a node open a new file at once, and for this SQLite does not wait as it does else."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _packed(identity: StatIdentity) -> tuple[bytes, bytes]:
    """Place and version. Whatever a file system says fits: dates far away take a longer form of their own."""
    return _fitting(_PLACE, identity[:2]), _fitting(_VERSION, identity[2:])


def _fitting(form: struct.Struct, numbers: tuple[int, ...]) -> bytes:
    try:
        return form.pack(*numbers)
    except struct.error:
        return b"".join(number.to_bytes(_WIDE_BYTES, "big", signed=True) for number in numbers)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
