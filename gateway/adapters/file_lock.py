"""File locks (`flock`): held by an open file, let go by the kernel when the last holder is gone.

A lock belongs to the open file, not to the process: a child that inherits the descriptor holds it
too. That is how a server proves that it lives, whatever becomes of whoever started it. Lock files are
never removed, since two processes could then each lock a file of their own.
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

_POLL_SECONDS = 0.003  # `flock` cannot wait for a limited time; asking costs a microsecond


class FileLock:
    """One open lock file. Closing it lets go, unless a child holds the same open file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # No link is followed: the file must be in the private folder it seems to be in.
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
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
        """Take it for ourselves alone, if nobody else has it. A shared hold of ours may be lost if not."""
        return self._is_taken(fcntl.LOCK_EX)

    def is_shared(self) -> bool:
        """Take it together with others who share it, if nobody has it alone."""
        return self._is_taken(fcntl.LOCK_SH)

    def wait_alone(self, deadline: float) -> None:
        """Take it for ourselves alone, waiting until this moment of `time.monotonic`."""
        while not self.is_taken_alone():
            if time.monotonic() >= deadline:
                raise Unavailable("valkey", f"another process has held {self._path} for too long")
            time.sleep(_POLL_SECONDS)

    def _is_taken(self, how: int) -> bool:
        try:
            fcntl.flock(self.descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Misconfigured(str(self._path), f"it cannot be locked: {error.strerror}") from error
        return True
