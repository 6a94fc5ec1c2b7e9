r"""`heads.jsonl`: the signed heads of all chains of the node, as one chain of lines of its own.

Every process of the node appends to it, under a lock. A line holds one head as it stands in its
segment, byte for byte, the hash of the line before, and a signature over both:

    line      {"kind":"listed-head",...,"prev":"<64 hex>","head":{...},"signature":...,"hash":...}\n

The form is that of a record: `hash` covers all before it, `signature` all before that. The head
proves where its chain came to; the link proves which heads came before. Without it, a whole chain
could be taken away together with its own lines here, and nothing would be left to miss it.

Lines cut off the very end leave no gap: whatever is appended next follows what is left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, HEADS_NAME
from gateway.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    SCHEMA_VERSION,
    encode,
    seal,
    split_hash,
    with_signature,
)
from gateway.audit.segment import Remedy, raise_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.audit.head import Signer

_PAUSE_SECONDS = 0.002  # an append takes microseconds; a sync a few milliseconds
_TAIL_BYTES = 128  # holds the end of a line, which is where its hash stands


class ListedHead(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="listed-head",
):
    """One line. `head` is the head's own line in its segment, without the newline."""

    schema: int
    prev: str
    head: msgspec.Raw
    signature: str = ""
    hash: str = ""


_decoder = msgspec.json.Decoder(ListedHead)


def parse_listed(line: bytes) -> ListedHead:
    """A line of the file, unverified. Raises `ValueError` when it is none."""
    return _decoder.decode(line)


class HeadsFile:
    """The file, for one process of those that append to it."""

    __slots__ = ("_path", "_signer")

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._path = folder / HEADS_NAME
        self._signer = signer

    def append(self, head_line: bytes, *, is_synced: bool, patience_seconds: float) -> bool:
        """Add a head; False when another process holds the file all the while. Raises `SegmentError`."""
        for _ in range(int(patience_seconds / _PAUSE_SECONDS)):
            if self._try_append(head_line, is_synced=is_synced):
                return True
            time.sleep(_PAUSE_SECONDS)
        return self._try_append(head_line, is_synced=is_synced)

    def _try_append(self, head_line: bytes, *, is_synced: bool) -> bool:
        try:
            with _locked(self._path) as descriptor:
                size = _whole_lines(descriptor)
                line = self._linked(head_line, _last_hash(descriptor, size))
                is_whole = os.write(descriptor, line) == len(line)
                if not is_whole:
                    os.ftruncate(descriptor, size)
                elif is_synced:
                    os.fdatasync(descriptor)
        except BlockingIOError:
            return False
        except OSError as error:
            raise_fault(error, self._path, Remedy.RETRY)
        if not is_whole:
            raise_fault(OSError(errno.ENOSPC, "a part was written"), self._path, Remedy.RETRY)
        return True

    def _linked(self, head_line: bytes, prev: str) -> bytes:
        head = msgspec.Raw(head_line.rstrip(b"\n"))
        statement = encode(ListedHead(schema=SCHEMA_VERSION, prev=prev, head=head))
        return seal(with_signature(statement, self._signer.sign(statement)))[0]


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of a file that several processes append to, while nobody else does.

    Raises `BlockingIOError` when somebody does: a process that was stopped inside must not stop us.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)  # lets the lock go as well


def _whole_lines(descriptor: int) -> int:
    """The size of the file, after cutting off the half line that a crash may have left; its chain has it."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    size = start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1
    os.ftruncate(descriptor, size)
    return size


def _last_hash(descriptor: int, size: int) -> str:
    """What the next line follows. After a line that somebody spoilt, writing goes on as in a new file.

    `verify` names that line, and once it is taken away the gap: nothing is hidden by starting anew.
    """
    start = max(0, size - _TAIL_BYTES)
    try:
        return split_hash(os.pread(descriptor, size - start, start).removesuffix(b"\n"))[1]
    except ValueError:
        return GENESIS
