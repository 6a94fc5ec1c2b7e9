"""How much room the disk of the audit folder has left, so that an operator hears of it before it is full.

A full disk stops everything (I5), so this is measured in each worker, at each scrape, or by the thread that
writes: one system call on a disk that is written to all the time. It says nothing about who uses the room.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class DiskSpace(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are left for us, and of the whole disk."""

    free_bytes: int
    whole_bytes: int

    def gauges(self) -> dict[str, float]:
        """What is shown of it as metrics."""
        return {
            "cachegate_audit_disk_free_bytes": float(self.free_bytes),
            "cachegate_audit_disk_bytes": float(self.whole_bytes),
        }


def find_disk_space(folder: Path) -> DiskSpace | None:
    """The room of the disk that this folder is on; None when it cannot be told, as for a folder that is gone.

    What the file system keeps for root does not count as left.
    """
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return DiskSpace(
        free_bytes=status.f_bavail * status.f_frsize, whole_bytes=status.f_blocks * status.f_frsize
    )
