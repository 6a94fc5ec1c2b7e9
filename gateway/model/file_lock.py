"""File locks with `flock`: held by an open file and released by the kernel when its last holder is gone.

`try_lock` locks any open file; `FileLock` is a file that exists only to be locked.

A lock belongs to the open file, not to the process: a child that inherits the descriptor holds the lock too.
The embedded server holds one this way, which shows that it lives after its starter has ended. Lock files are
never removed: two processes could then lock two different files under one name.
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Self

from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.trusted_files import refusal_of

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

_POLL_SECONDS = 0.003  # `flock` has no timeout, so the lock is polled; one attempt costs a microsecond


def open_lock_file(path: Path) -> int:
    """Open or create a lock file. Raises `OSError`.

    It follows no link: the file must be in the folder that the path names.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int, *, is_shared: bool = False) -> bool:
    """Lock an open file, without waiting; False when another open file holds it. Raises `OSError`."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the path names the file that the descriptor is open on. Raises `OSError`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


class FileLock:
    """One open lock file. Closing it releases the lock, unless a child holds the same open file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.descriptor = open_lock_file(path)
        except OSError as error:
            why = f"the lock file cannot be opened: {refusal_of(path, error)}"
            raise Misconfigured(str(path), why) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def is_taken_alone(self) -> bool:
        """Try to take the lock exclusively. On failure a shared lock of ours may be lost."""
        return self._is_taken(is_shared=False)

    def is_shared(self) -> bool:
        """Try to take the lock shared; fails if another process has it exclusively."""
        return self._is_taken(is_shared=True)

    def wait_alone(self, deadline: float) -> None:
        """Take the lock exclusively, waiting until this `time.monotonic` deadline. Raises `Unavailable`."""
        while not self.is_taken_alone():
            if time.monotonic() >= deadline:
                raise Unavailable("valkey", f"another process has held {self._path} for too long")
            time.sleep(_POLL_SECONDS)

    def _is_taken(self, *, is_shared: bool) -> bool:
        try:
            return try_lock(self.descriptor, is_shared=is_shared)
        except OSError as error:
            raise Misconfigured(str(self._path), f"it cannot be locked: {error.strerror}") from error
