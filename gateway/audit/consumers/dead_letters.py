"""The file of records that a target refused for good: `consumers/<name>.refused.jsonl`, of a bounded size.

One line per record, synced before the delivery goes on, so that a refusal loses nothing:

    {"at":"<time>","delivery":"<id>","status":400,"record":{...}}

`record` is the record's line, byte for byte. When the file is full, delivery stops until somebody has taken
it away (`mv` is enough); that is an alarm. A file of a consumer that was removed stays.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.audit.consumers.delivery import NotDeliveredError
from gateway.audit.folder import FILE_MODE
from gateway.audit.segment import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SUFFIX = ".refused.jsonl"
MOST_BYTES = 64 << 20
FULL_PAUSE_SECONDS = 10.0


class DeadLetters:
    """The dead letters of one consumer."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self._most = most_bytes

    def verify_room(self, size: int) -> None:
        """Raises `NotDeliveredError` when so many bytes of records would not fit."""
        try:
            used = self.path.lstat().st_size
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed(error) from error
        if used and used + size > self._most:
            raise NotDeliveredError(
                f"the target refuses records, and {self.path} is full: see why it does, and move the file",
                pause_seconds=FULL_PAUSE_SECONDS,
                is_paused=True,
            )

    def append(self, lines: Iterable[bytes], *, at: str, delivery: str, status: int) -> None:
        """Add records. Raises `NotDeliveredError` when there is no room, or the disk fails."""
        start = b'{"at":"%b","delivery":"%b","status":%d,"record":' % (at.encode(), delivery.encode(), status)
        content = b"".join(start + line + b"}\n" for line in lines)
        self.verify_room(len(content))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, FILE_MODE)
            try:
                before = os.fstat(descriptor).st_size
                try:
                    write_whole(descriptor, content)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, before)  # no half line stays in front of the next ones
                    raise
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> NotDeliveredError:
        why = f"the target refuses records, and {self.path} cannot be written ({error.strerror})"
        return NotDeliveredError(why, is_paused=True)
