"""Read segments, plain or packed, and `heads.jsonl`: whole lines, in bounded memory.

A segment has one name for as long as it is there: its own, and that with `.zst` once it is packed. A reader
that finds the plain file gone reads the packed one, at the same offsets: those of the content.

Anyone who may write to the folder can put anything under a segment's name. Only regular files are read (a
FIFO would block the reader for ever), no line is longer than a record may be, and what does not decompress
ends the segment with `DamagedSegmentError`.
"""

from __future__ import annotations

import io
import os
import stat
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, cast

from gateway.audit.packed import PACKED_SUFFIX, DamagedSegmentError, content_size, pieces, unpacked
from gateway.audit.record import MAX_LINE_BYTES
from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_BLOCK_BYTES = 64 << 10


@contextmanager
def opened(path: Path, offset: int = 0) -> Iterator[io.BufferedReader]:
    """The content of a file from this offset on. Raises `OSError` and, while read, `DamagedSegmentError`."""
    with _opened_raw(path) as (file, size, is_packed):
        if not is_packed:
            file.seek(offset)
            yield cast("io.BufferedReader", file)
            return
        content = unpacked(file, size)
        if content.seekable():
            content.seek(offset)
            offset = 0
        while offset:
            passed = len(content.read(min(offset, _BLOCK_BYTES)))
            if not passed:
                break
            offset -= passed
        yield content


def size_of(path: Path) -> int:
    """The length of a file's content. Raises `OSError` and `DamagedSegmentError`."""
    with _opened_raw(path) as (file, size, is_packed):
        return content_size(file, size) if is_packed else size


@contextmanager
def _opened_raw(path: Path) -> Iterator[tuple[BinaryIO, int, bool]]:
    """The open file, its size, and whether it is packed."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    is_packed = path.name.endswith(PACKED_SUFFIX)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        if is_packed:
            raise
        descriptor, is_packed = os.open(path.with_name(path.name + PACKED_SUFFIX), flags), True
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DamagedSegmentError("it is not a regular file")
    with os.fdopen(descriptor, "rb", _BLOCK_BYTES) as file:
        yield file, status.st_size, is_packed


class OpenedSegment:
    """An open segment that is read in pieces, from any offset. Raises as `opened`."""

    __slots__ = ("_content", "_context", "_descriptor", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._context = opened(path)
        self._content = self._context.__enter__()
        try:
            self._descriptor = (
                self._content.fileno()
            )  # plain; it may grow, so nothing of it is kept in memory
        except io.UnsupportedOperation:
            self._descriptor = -1

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from an offset on; fewer at the end."""
        if self._descriptor >= 0:
            return os.pread(self._descriptor, length, offset)
        if self._content.seekable():
            self._content.seek(offset)
            return self._content.read(length)
        with opened(self._path, offset) as content:  # of one frame: from its beginning
            return content.read(length)

    def close(self) -> None:
        """Close it."""
        self._context.__exit__(None, None, None)


def read_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The lines from this offset on, numbered from 1. A line ends at `MAX_LINE_BYTES` at the latest.

    Raises `Unavailable` when the file cannot be read, `DamagedSegmentError` when it is not what it is named.
    """
    try:
        with opened(path, offset) as file:
            yield from enumerate(iter(partial(file.readline, MAX_LINE_BYTES), b""), 1)
    except OSError as error:
        raise unreadable(path, error) from error


def digest_of(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file's content in hex, and its length. Raises `OSError` and `DamagedSegmentError`."""
    digest, size = sha256(), 0
    with opened(path) as file:
        for piece in pieces(file):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def has_same_content(path: Path, other: Path) -> bool:
    """Whether two files hold the same; a file that is gone or damaged holds nothing."""
    try:
        return digest_of(path) == digest_of(other)
    except FileNotFoundError:
        return True  # packing ended meanwhile: the plain file is gone, and was compared before
    except (OSError, DamagedSegmentError):
        return False


def readable_lines(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The same, as far as the file can be read: what is wrong with the rest, `verify` reports."""
    with suppress(DamagedSegmentError):
        yield from read_lines(path, offset)


def lines_backward(path: Path, end_at: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The whole lines of a file, the last one first, each with the offset at which it ends.

    An incomplete line at the end is skipped. With `end_at`, the lines in front of this offset. Of a segment
    that was packed as one frame, only the last ones of them are kept and returned. A file that is gone, or is
    not what it is named, has no lines; `verify` reports it.
    """
    try:
        with _opened_raw(path) as (file, size, is_packed):
            content = unpacked(file, size) if is_packed else file
            yield from _backward(content, end_at) if content.seekable() else _last_lines(content, end_at)
    except (FileNotFoundError, DamagedSegmentError):
        return
    except OSError as error:
        raise unreadable(path, error) from error


_KEPT_LINES = 4096  # more than can follow a head (`last_head.MOST_LINES`)


def _last_lines(content: BinaryIO, end_at: int | None) -> Iterator[tuple[int, bytes]]:
    end = 0
    last: deque[tuple[int, bytes]] = deque(maxlen=_KEPT_LINES)
    while (end_at is None or end < end_at) and (line := content.readline(MAX_LINE_BYTES)):
        end += len(line)
        if line.endswith(b"\n"):
            last.append((end, line))
    yield from reversed(last)


def _backward(file: BinaryIO, end_at: int | None) -> Iterator[tuple[int, bytes]]:
    position = file.seek(0, os.SEEK_END) if end_at is None else end_at
    is_at_line_end = False
    rest = b""  # not yet returned: ends at a line end, and its first line may be incomplete
    while position > 0 and len(rest) <= MAX_LINE_BYTES:
        size = min(_BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        rest = file.read(size) + rest
        if not is_at_line_end:
            rest = rest[: rest.rfind(b"\n") + 1]
            is_at_line_end = bool(rest)
        start = 0 if position == 0 else rest.find(b"\n") + 1
        end = position + len(rest)
        for line in reversed(rest[start:].split(b"\n")[:-1]):
            yield end, line + b"\n"
            end -= len(line) + 1
        rest = rest[:start]


def unreadable(path: Path, error: OSError) -> Unavailable:
    """The error for a file that cannot be read."""
    return Unavailable(
        "audit", f"{path} cannot be read ({error.strerror}); read as its owner", Reason.NO_AUDIT
    )
