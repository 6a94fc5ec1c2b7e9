"""Append to one segment file: a line is written whole or not at all, and the file is checked before each.

The check is one `lstat` of the path per record. While we hold the descriptor open, its inode number
cannot be given to another file, so a path that still has our device and inode is our file: a file that was
removed, renamed, replaced, cut or extended by others shows in that one call. Checking less often would
be cheaper by a microsecond, but records could go into a file that nobody will ever read. A byte changed in
place does not show here; `verify` finds it by the chain's hashes.

A segment is created under a hidden name in `live/` and locked there before it gets its own name. So no
process sees a first segment without its signed head, wherever its writer is killed; and a chain whose last
segment is unlocked has lost its process.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from gateway.audit.folder import LIVE_NAME, create_locked
from gateway.model.errors import Reason, Unavailable
from gateway.model.trusted_files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

_NO_SPACE = {
    errno.ENOSPC: "no space left to write {path}; free some, and writing goes on by itself",
    errno.EDQUOT: "the disk quota is used up, so {path} cannot be written; raise it or free some space, "
    "and writing goes on by itself",
    errno.EFBIG: "{path} has reached the largest size that a file may have here; raise the limit "
    "(`ulimit -f`, LimitFSIZE=), and writing goes on by itself",
}
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class WriteRemedy(StrEnum):
    """What the writer has to do before it can continue."""

    RETRY = "retry"  # the segment is whole: write to it again
    NEXT_SEGMENT = "next-segment"  # whole, but not writable: continue in another file
    NEW_CHAIN = "new-chain"  # records are lost or uncertain: this chain ends here


class SegmentError(Unavailable):
    """The record was not written; `remedy` says how the log can continue."""

    def __init__(self, why: str, remedy: WriteRemedy) -> None:
        super().__init__("audit", why, Reason.NO_AUDIT)
        self.remedy = remedy


class ShortWriteError(OSError):
    """The kernel took a part of what was written, and gave no error for the rest."""

    def __init__(self, taken: int, length: int) -> None:
        super().__init__(errno.EIO, f"a short write: {taken} of {length} bytes were taken, without an error")


def write_whole(descriptor: int, content: bytes) -> None:
    """Write all of it. Raises `OSError` when the kernel does not take it; a part may be in the file then.

    A disk that becomes full takes a part first and reports the error at the next call, hence the loop.
    """
    taken = os.write(descriptor, content)
    while taken < len(content):
        more = os.write(descriptor, content[taken:])
        if more == 0:
            raise ShortWriteError(taken, len(content))
        taken += more


def raise_fault(error: OSError, path: Path | str, remedy: WriteRemedy) -> NoReturn:
    """Raise the `SegmentError` that says what a failed system call means for the operator."""
    if isinstance(error, ShortWriteError):
        why = f"{path}: {error.strerror}; the line was taken back: check the file system"
    elif error.errno in _NO_SPACE:
        why = _NO_SPACE[error.errno].format(path=path)
    elif error.errno in _READ_ONLY:
        why = f"{path} cannot be written; make its file system and folder writable for this user"
    else:
        why = f"writing {path} failed ({os.strerror(error.errno or 0)}); check the file system"
    raise SegmentError(why, remedy) from error


class Segment:
    """An open segment, written by this process alone. It has a hidden name until `publish`."""

    __slots__ = ("_descriptor", "_device", "_hidden", "_inode", "_is_synced", "_path", "size")

    def __init__(self, path: Path, *, is_synced: bool) -> None:
        self._path = str(path.absolute())  # a string: `lstat` of a Path costs a conversion per record
        self._hidden: Path | None = path.parent / LIVE_NAME / f".{path.name}"
        self._is_synced = is_synced
        self.size = 0
        try:
            self._descriptor = create_locked(self._hidden, os.O_APPEND)
        except OSError as error:
            raise_fault(error, path, WriteRemedy.NEW_CHAIN)
        status = os.fstat(self._descriptor)
        self._device, self._inode = status.st_dev, status.st_ino

    def publish(self) -> None:
        """Rename the file from its hidden name to its own. A name that is taken is not overwritten."""
        hidden, path = self._hidden, self._path
        if hidden is None:
            return
        try:
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            hidden.rename(path)
            self._hidden = None
            if self._is_synced:
                sync_folder(hidden.parent.parent)
        except OSError as error:
            raise_fault(error, path, WriteRemedy.NEW_CHAIN)

    def verify_in_place(self) -> None:
        """Raises `SegmentError` unless the path is still our file, of the size we wrote, and writable."""
        try:
            status = os.lstat(self._path)  # a link to our file is not our file
        except OSError as error:
            raise SegmentError(
                f"{self._path} is gone; whatever removes audit segments must leave the one being written",
                WriteRemedy.NEW_CHAIN,
            ) from error
        if status.st_ino != self._inode or status.st_dev != self._device:
            raise SegmentError(
                f"{self._path} was replaced by another file; keep rotation tools off the audit folder",
                WriteRemedy.NEW_CHAIN,
            )
        if status.st_size != self.size:
            raise SegmentError(
                f"{self._path} has {status.st_size} bytes where {self.size} were written; "
                "something else writes to or cuts audit segments: find and stop it",
                WriteRemedy.NEW_CHAIN,
            )
        if not status.st_mode & stat.S_IWUSR:
            raise SegmentError(
                f"{self._path} was made read-only; leave the segment being written writable",
                WriteRemedy.NEXT_SEGMENT,
            )

    def append(self, line: bytes) -> None:
        """Write a line in one call. When this returns the kernel has it; with `is_synced`, the disk."""
        try:
            write_whole(self._descriptor, line)
        except OSError as error:
            self._take_back()
            raise_fault(error, self._path, WriteRemedy.RETRY)
        if self._is_synced:
            try:
                os.fdatasync(self._descriptor)
            except OSError as error:
                # The kernel may have dropped the pages and will not report them again.
                self._take_back()
                raise_fault(error, self._path, WriteRemedy.NEW_CHAIN)
        self.size += len(line)

    def close(self) -> None:
        """Close the file. An error in closing changes nothing about what was written."""
        descriptor, self._descriptor = self._descriptor, -1  # the number may be reused at once
        with suppress(OSError):
            os.close(descriptor)

    def discard(self) -> None:
        """Remove a file that was just created and of which no signed head is listed."""
        with suppress(OSError):
            os.unlink(self._hidden or self._path)  # noqa: PTH108 -- the path is a string here
        self.close()

    def _take_back(self) -> None:
        """Cut off an incomplete or unsynced line, so that the next line starts on its own."""
        try:
            if os.fstat(self._descriptor).st_size != self.size:
                os.ftruncate(self._descriptor, self.size)
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.NEW_CHAIN)
