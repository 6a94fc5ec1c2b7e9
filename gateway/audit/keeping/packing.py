"""Replace a closed segment by its packed form, so that at every moment one whole copy of it is there.

    write  live/.<name>.zst   under construction, locked; a start of the gateway removes one that was left
    sync, read it back        its content must have the SHA-256 of what was read
    link   <name>.zst         never over a file that is there
    sync the folder, remove <name>, sync the folder

Killed in between, there is a hidden file, or both forms: then the next round compares them and removes the
plain one. Readers take the plain one while it is there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from gateway.audit.folder import LIVE_NAME, create_locked
from gateway.audit.packed import PACKED_SUFFIX, DamagedSegmentError, pack
from gateway.audit.reading import digest_of
from gateway.model.trusted_files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


def pack_segment(path: Path) -> int:
    """Pack a closed segment; the bytes that it saves on the disk.

    Raises `OSError`, and `DamagedSegmentError` when what is there or what was written is not the segment.
    """
    packed = path.with_name(path.name + PACKED_SUFFIX)
    if not packed.exists():
        _write(path, packed)
    elif digest_of(packed) != digest_of(path):
        raise DamagedSegmentError(f"{packed.name} is there already, and differs")
    saved = path.stat().st_size - packed.stat().st_size
    sync_folder(path.parent)
    path.unlink()
    sync_folder(path.parent)
    return saved


def _write(path: Path, packed: Path) -> None:
    """Write the packed form under its own name."""
    hidden = path.parent / LIVE_NAME / f".{packed.name}"
    with suppress(FileNotFoundError):
        hidden.unlink()  # of a round that was killed: this one has the lock
    descriptor = create_locked(hidden)
    try:
        digest = sha256()
        with path.open("rb") as source, os.fdopen(descriptor, "wb", closefd=False) as target:
            status = os.fstat(source.fileno())
            pack(source, status.st_size, target, digest.update)
            target.flush()
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))  # retention goes by it
            os.fsync(descriptor)
        if digest_of(hidden) != (digest.hexdigest(), status.st_size):
            raise DamagedSegmentError(f"{path.name} did not come back as it was written; check the disk")
        os.link(hidden, packed)
    finally:
        hidden.unlink(missing_ok=True)
        os.close(descriptor)
