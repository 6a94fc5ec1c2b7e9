"""Checks whether an open file is still the file that was opened.

Compared are device, inode, size, mtime and ctime: a process that rewrites a file in place can reset the
mtime, but not the ctime. The check uses the open descriptor, so it does not matter if the name has been
given to another file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from gateway.model.verdicts import OpenFile


class CutError(Exception):
    """The rest must not be sent. `reason` is for the answer, if nothing was sent yet."""

    def __init__(self, ending: Ending, reason: Reason) -> None:
        super().__init__(ending.value)
        self.ending = ending
        self.reason = reason

    @classmethod
    def changed(cls) -> CutError:
        """The file is no longer what was opened."""
        return cls(Ending.CHANGED_ON_DISK, Reason.CHANGED_ON_DISK)


def is_unchanged(file: OpenFile) -> bool:
    """Whether the descriptor still has the identity that was opened: inode, size and times."""
    now = os.fstat(file.descriptor)
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns) == file.identity


def verify_unchanged(file: OpenFile) -> None:
    """Raises `CutError` when the file changed, or when the disk cannot tell."""
    try:
        is_what_it_was = is_unchanged(file)
    except OSError as error:
        raise CutError(Ending.FAILED, Reason.CACHE_UNAVAILABLE) from error
    if not is_what_it_was:
        raise CutError.changed()


def unsent(file: OpenFile, cut: CutError) -> Unavailable:
    """The failure for a cut before the first byte: the client may retry."""
    return Unavailable("cache", f"{file.handle}: {cut.ending.value} before anything was sent", cut.reason)
