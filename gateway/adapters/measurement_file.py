"""Stores the digests that this node computed, in one SQLite file shared by its workers and commands.

A record holds the MD5 and SHA-256 that a file had under one stat identity. Its key is device and inode; a
newer identity replaces the older one. The file is a cache, not an authority: what the fleet agreed on is in
Redis, and a node that loses this file hashes again. WAL mode lets readers proceed while a process writes. A
crash of the machine may lose the last records, never the file.

`turn` takes a lock file per inode with `flock`, so that one process at a time hashes a file on this node. The
holder removes the lock file while it still holds the lock, so that a hundred thousand blobs do not leave as
many empty files. A process that locked a file which is no longer the one in the folder does not have the lock
and must try again.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.file_lock import is_at, open_lock_file, try_lock
from gateway.model.pins import Measured
from gateway.model.trusted_files import make_own_folder, verify_trusted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.model.pins import StatIdentity

BUSY_SECONDS = 5.0  # how long a writer waits for another writer; each write takes well below 1 ms
_POLL_SECONDS = 0.003

# Inode numbers use all 64 bits, and an SQLite integer is signed.
_PLACE, _VERSION = struct.Struct(">QQ"), struct.Struct(">Qqq")
_WIDE_BYTES = 16  # bytes per number that does not fit 64 bits: nanoseconds after 2262 need 65
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS measured (
        place BLOB PRIMARY KEY, version BLOB NOT NULL, md5 BLOB NOT NULL, sha256 BLOB NOT NULL
    ) WITHOUT ROWID
"""


class MeasurementFile:
    """The measurements of this node, shared by its processes. Safe to call from several threads.

    Every method raises `Unavailable` when the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def find(self, identity: StatIdentity) -> Measured | None:
        """Return what was measured under exactly this identity."""
        with self._opened() as connection:
            row = connection.execute(
                "SELECT md5, sha256 FROM measured WHERE place = ? AND version = ?", _packed(identity)
            ).fetchone()
        return None if row is None else Measured(identity=identity, md5=row[0].hex(), sha256=row[1].hex())

    def put(self, measured: Measured) -> None:
        """Store a measurement; it replaces the one of the same inode."""
        digests = bytes.fromhex(measured.md5), bytes.fromhex(measured.sha256)
        with self._opened() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?)", (*_packed(measured.identity), *digests)
            )

    @contextmanager
    def turn(self, identity: StatIdentity) -> Iterator[bool]:
        """Try to take the lock of this file; yields whether it was taken."""
        path = self._folder / f"{identity[0]:x}-{identity[1]:x}.lock"
        try:
            make_own_folder(self._folder)
            descriptor = open_lock_file(path)
        except (OSError, Misconfigured) as error:
            raise self._unusable(error) from error
        try:
            is_mine = self._is_locked(descriptor, path)
            try:
                yield is_mine
            finally:
                if is_mine:
                    with suppress(OSError):  # an empty file that remains does not block others
                        path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the database."""
        with self._mutex:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _is_locked(self, descriptor: int, path: Path) -> bool:
        try:
            return try_lock(descriptor) and is_at(path, descriptor)
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
            check_same_thread=False,  # the mutex protects it instead
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
    """Switch to WAL, with retries: SQLite's busy timeout does not cover many workers opening a new file."""
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
    """Encode key and version. Values beyond 64 bits, such as dates after 2262, use a longer encoding."""
    return _fitting(_PLACE, identity[:2]), _fitting(_VERSION, identity[2:])


def _fitting(form: struct.Struct, numbers: tuple[int, ...]) -> bytes:
    try:
        return form.pack(*numbers)
    except struct.error:
        return b"".join(number.to_bytes(_WIDE_BYTES, "big", signed=True) for number in numbers)
