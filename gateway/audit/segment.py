"""One segment file: whole lines at its end, or none, and a look at the file before each.

The look is one `lstat` of the path per record. While we hold the descriptor open, its inode number
cannot be given to another file, so a path that still has our device and inode is our file: gone,
moved, replaced, cut or grown by somebody else all show in that one call. Looking less often would
be cheaper by a microsecond and would let records go into a file that nobody will ever read. A byte
changed in place does not show here; the chain shows it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from gateway.audit.folder import FILE_MODE, sync_folder
from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Remedy(StrEnum):
    """What the writer has to do before it can go on."""

    RETRY = "retry"  # the segment is whole: write to it again
    NEXT_SEGMENT = "next-segment"  # whole, but not to be written to: go on in another file
    NEW_CHAIN = "new-chain"  # records are lost or unsure: this chain ends here


class SegmentError(Unavailable):
    """The record was not written; `remedy` says how the log can go on."""

    def __init__(self, why: str, remedy: Remedy) -> None:
        super().__init__("audit", why, Reason.NO_AUDIT)
        self.remedy = remedy


def raise_fault(error: OSError, path: Path | str, remedy: Remedy) -> NoReturn:
    """Say what a failed system call means for the operator."""
    if error.errno in _NO_SPACE:
        why = f"no space left to write {path}; free some or raise the quota, and writing goes on by itself"
    elif error.errno in _READ_ONLY:
        why = f"{path} cannot be written; make its file system and folder writable for this user"
    else:
        why = f"writing {path} failed ({os.strerror(error.errno or 0)}); check the file system"
    raise SegmentError(why, remedy) from error


class Segment:
    """An open segment, written by this process alone."""

    __slots__ = ("_descriptor", "_device", "_inode", "_is_synced", "_path", "size")

    def __init__(self, path: Path, *, is_synced: bool) -> None:
        self._path = str(path.absolute())  # a string: `lstat` of a Path costs a conversion per record
        self._is_synced = is_synced
        self.size = 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self._path, flags, FILE_MODE)
        except OSError as error:
            raise_fault(error, path, Remedy.NEW_CHAIN)
        status = os.fstat(self._descriptor)
        self._device, self._inode = status.st_dev, status.st_ino
        if is_synced:
            try:
                sync_folder(path.parent)
            except OSError as error:
                self.discard()
                raise_fault(error, path, Remedy.NEW_CHAIN)

    def verify_in_place(self) -> None:
        """Raises `SegmentError` unless the path still is our file, as long as we left it, and writable."""
        try:
            status = os.lstat(self._path)  # a link to our file is not our file
        except OSError as error:
            raise SegmentError(
                f"{self._path} is gone; whatever removes audit segments must leave the one being written",
                Remedy.NEW_CHAIN,
            ) from error
        if status.st_ino != self._inode or status.st_dev != self._device:
            raise SegmentError(
                f"{self._path} was replaced by another file; keep rotation tools off the audit folder",
                Remedy.NEW_CHAIN,
            )
        if status.st_size != self.size:
            raise SegmentError(
                f"{self._path} has {status.st_size} bytes where {self.size} were written; "
                "something else writes to or cuts audit segments: find and stop it",
                Remedy.NEW_CHAIN,
            )
        if not status.st_mode & stat.S_IWUSR:
            raise SegmentError(
                f"{self._path} was made read-only; leave the segment being written writable",
                Remedy.NEXT_SEGMENT,
            )

    def append(self, line: bytes) -> None:
        """Write one line whole, in one call; then the kernel has it, or the disk if asked for."""
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            raise_fault(error, self._path, Remedy.RETRY)
        if written != len(line):
            self._take_back()
            raise_fault(OSError(errno.ENOSPC, "a part of the line was written"), self._path, Remedy.RETRY)
        if self._is_synced:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                # The kernel may have dropped the pages and will not report them again.
                raise_fault(error, self._path, Remedy.NEW_CHAIN)
        self.size += written

    def close(self) -> None:
        """Let go of the file. An error in closing changes nothing about what was written."""
        descriptor, self._descriptor = self._descriptor, -1  # the number may be somebody else's at once
        with suppress(OSError):
            os.close(descriptor)

    def discard(self) -> None:
        """Take back a file that was made a moment ago and in which nothing was ever vouched for."""
        with suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 -- the path is a string here
        self.close()

    def _take_back(self) -> None:
        """Cut off half a line, so that the next one starts on its own."""
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            raise_fault(error, self._path, Remedy.NEW_CHAIN)
