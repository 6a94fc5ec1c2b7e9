r"""Append to `heads.jsonl`: the signed heads of all chains of the node, linked line to line.

Every process of the node appends to it, under a lock. A line contains one head as it is in its segment,
byte for byte, the hash of the line before, and a signature over both:

    line      {"head":{...},"kind":"listed-head","prev":"<64 hex>","schema":2,"signature":...,"hash":...}\n

The form is that of a record: `hash` covers all before it, `signature` all but itself and that. The head
proves how far its chain goes; the link proves which heads came before. Without the link, a whole chain could
be removed together with its lines here and leave no evidence.

A process remembers the size of the file and the hash of its last line (`HeadsEnd`), checks them again before
each head, and writes them into the head. A file that no longer has that line at that offset was cut,
replaced or removed: this is a fault, like that of a segment. Writing continues in whatever file is there
now, but never as if it were a new one: the next line links to the last known one, or its head says what
was known, and `verify` reports that permanently.

Limit: lines cut off the very end, before any process checked again, leave no gap.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from gateway.audit.folder import FILE_MODE, HEADS_NAME
from gateway.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    SCHEMA_VERSION,
    encode_signed,
    hash_tail,
    seal,
    split_hash,
)
from gateway.audit.segment import SegmentError, WriteRemedy, raise_fault, write_whole
from gateway.model.file_lock import try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.audit.head import Signer

_PAUSE_SECONDS = 0.002  # an append takes microseconds; a sync a few milliseconds
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TAIL_BYTES = 128  # contains the end of a line, where its hash is
_MOST_SPOILT_LINES = 1000  # damaged lines that are skipped at the end; each costs a microsecond


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
    """Parse a line of the file, unverified. Raises `ValueError`."""
    return _decoder.decode(line)


class HeadsEnd(NamedTuple):
    """The size of the file, counting whole lines only, and the hash of its last line."""

    size: int
    hash: str


NO_LINE = HeadsEnd(0, GENESIS)


def has_line_ending_at(descriptor: int, end: HeadsEnd) -> bool:
    """Whether a line with this hash ends at this offset of the file. Raises `OSError`."""
    if end.size == 0:
        return end.hash == GENESIS
    tail = hash_tail(end.hash)
    start = end.size - len(tail)
    return start >= 0 and os.pread(descriptor, len(tail), start) == tail


class HeadsFile:
    """The file, as used by one of the processes that append to it."""

    __slots__ = ("_path", "_signer", "known")

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._path = folder / HEADS_NAME
        self._signer = signer
        self.known = NO_LINE

    def learn(self) -> HeadsEnd:
        """Read the end of the file at start, with nothing known before. Raises `SegmentError`."""
        self.known = NO_LINE
        return self.look()

    def ensure_there(self) -> None:
        """Create an empty file if there is none: no copy may have a chain but no heads file."""
        try:
            os.close(os.open(self._path, _APPEND, FILE_MODE))
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.NEW_CHAIN)

    def look(self) -> HeadsEnd:
        """Check and return the end of the file. Raises `SegmentError` when the known line is gone.

        While another process appends, returns the known end: a line may be rolled back until it is whole.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.known != NO_LINE:
                self._raise_lost()
            return NO_LINE
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.RETRY)
        try:
            if try_lock(descriptor, is_shared=True):
                if not has_line_ending_at(descriptor, self.known):
                    self._raise_lost()
                self.known = _find_end(descriptor, os.fstat(descriptor).st_size) or self.known
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.RETRY)
        finally:
            os.close(descriptor)
        return self.known

    def append(
        self, pending: list[bytes], *, is_synced: bool, patience_seconds: float = 0.0, is_anew: bool = False
    ) -> None:
        """List heads, and remove the listed ones from `pending`. Raises `SegmentError`.

        They stay in `pending` when another process holds the lock all the while. `is_anew` permits appending
        although the known line is gone: for the first and the last head of a chain, and for an abandoned one.
        """
        for _ in range(int(patience_seconds / _PAUSE_SECONDS)):
            self._try_append(pending, is_synced=is_synced, is_anew=is_anew)
            if not pending:
                return
            time.sleep(_PAUSE_SECONDS)
        self._try_append(pending, is_synced=is_synced, is_anew=is_anew)

    def _try_append(self, pending: list[bytes], *, is_synced: bool, is_anew: bool) -> None:
        try:
            with _opened(self._path) as descriptor:
                if not try_lock(descriptor):
                    return  # a process that was stopped while it holds the lock must not block us
                if not has_line_ending_at(descriptor, self.known) and not is_anew:
                    self._raise_lost()
                while pending:
                    self.known = self._append_one(descriptor, pending[0], is_synced=is_synced)
                    del pending[0]
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.RETRY)

    def _append_one(self, descriptor: int, head_line: bytes, *, is_synced: bool) -> HeadsEnd:
        size = _whole_lines(descriptor)
        # A file that was emptied or damaged is not started again: its next line links to the known one.
        last = _find_end(descriptor, size) or self.known
        line, digest = self._linked(head_line, last.hash)
        try:
            write_whole(descriptor, line)
            if is_synced:
                os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        return HeadsEnd(size + len(line), digest)

    def _linked(self, head_line: bytes, prev: str) -> tuple[bytes, str]:
        head = msgspec.Raw(head_line.rstrip(b"\n"))
        listed = ListedHead(schema=SCHEMA_VERSION, prev=prev, head=head)
        return seal(encode_signed(listed, self._signer.sign))

    def _raise_lost(self) -> NoReturn:
        raise SegmentError(
            f"{self._path} was cut, replaced or removed: it no longer has the line that ended at byte "
            f"{self.known.size}; find out what does that, and keep a copy of the folder as it is",
            WriteRemedy.NEW_CHAIN,
        )


def find_last_line(descriptor: int) -> HeadsEnd:
    """The end of the last whole line; `NO_LINE` when there is none. Raises `OSError`."""
    return _find_end(descriptor, os.fstat(descriptor).st_size) or NO_LINE


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file that several processes append to."""
    descriptor = os.open(path, _APPEND, FILE_MODE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)  # also releases the lock


def _whole_lines(descriptor: int) -> int:
    """The size of the file, after cutting off an incomplete line left by a crash; its chain has that head."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    start = max(0, size - 2 * MAX_LINE_BYTES)
    size = start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1
    os.ftruncate(descriptor, size)
    return size


def _find_end(descriptor: int, size: int) -> HeadsEnd | None:
    """The end of the last whole line within the last bytes of the file; None when there is none.

    Usually that is the end of the file. An incomplete line and damaged lines at the end are skipped.
    """
    for looked_at in (_TAIL_BYTES, 2 * MAX_LINE_BYTES):
        start = max(0, size - looked_at)
        block = os.pread(descriptor, size - start, start)
        end = len(block)
        for _ in range(_MOST_SPOILT_LINES):
            end = block.rfind(b"\n", 0, end)
            if end < 0:
                break
            with suppress(ValueError):
                digest = split_hash(block[max(0, end - _TAIL_BYTES) : end])[1]
                return HeadsEnd(start + end + 1, digest)
    return None
