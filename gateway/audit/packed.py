"""Closed segments in compressed form (zstd): write one, and read one within bounds, from any offset.

A packed segment is a row of zstd frames of `FRAME_BYTES` of content each, and behind them a table of their
lengths, in the form of zstd's own "seekable format": a skippable frame that any zstd program passes over. So
a record in the middle costs one frame. An empty skippable frame in front says that a table belongs to it.
Releases before this wrote one frame for all, which is read from its beginning.

Whoever can write to the folder can put any file there, so a reader trusts nothing of it: a table that does
not fit the file to the byte, a frame whose header states another length than the table, or none, one that
claims more than `MOST_TIMES` its size or more than any segment has, a large window, more or less content than
claimed, and anything behind the end are all damage. Records hold digests that cannot be compressed, so an
honest segment shrinks to a tenth at most. Content is produced in small pieces, whatever a frame says: memory
is bounded.

The only module that imports the compression library.
"""

from __future__ import annotations

import io
import os
import struct
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import WriteableBuffer

PACKED_SUFFIX = ".zst"
MOST_BYTES = 4 << 30  # of the content: four times the largest setting
MOST_TIMES = 100  # content over file; honest ones have about 5
FRAME_BYTES = 256 << 10  # of content: unpacked in half a millisecond; larger ones save a few per cent
_SMALL_BYTES = 1 << 20  # of content, that any file may have
_MOST_WINDOW_BYTES = 8 << 20
_PIECE_BYTES = 128 << 10
_HEADER_BYTES = 18  # the longest that a frame's header may be
_LEVEL = 3  # 300 MB a second; higher levels gain a few per cent

_SKIPPABLE = struct.Struct("<II")  # magic, length of the content
_LENGTHS = struct.Struct("<II")  # of a frame: in the file, and of its content
_FOOTER = struct.Struct("<IBI")  # number of frames, flags (none: no checksums in the table), magic
_SKIPPABLE_MAGIC, _TABLE_MAGIC = 0x184D2A5E, 0x8F92EAB1
_OPENING = _SKIPPABLE.pack(_SKIPPABLE_MAGIC, 0)
_MOST_FRAMES = MOST_BYTES // FRAME_BYTES + 1
_MOST_FRAME_BYTES = FRAME_BYTES + (FRAME_BYTES >> 7) + 512  # of content that cannot be compressed


class DamagedSegmentError(ValueError):
    """It is not a segment, or not a whole one."""


def pack(source: BinaryIO, size: int, target: BinaryIO, note: Callable[[bytes], object]) -> None:
    """Compress a segment of this size. `note` sees each piece of the content."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
    target.write(_OPENING)
    table = _LENGTHS.pack(len(_OPENING), 0)
    left = size
    while left:
        piece = source.read(min(left, FRAME_BYTES))
        if len(piece) != min(left, FRAME_BYTES):
            raise DamagedSegmentError("it was cut while it was compressed")
        note(piece)
        frame = compressor.compress(piece)
        target.write(frame)
        table += _LENGTHS.pack(len(frame), len(piece))
        left -= len(piece)
    table += _FOOTER.pack(len(table) // _LENGTHS.size, 0, _TABLE_MAGIC)
    target.write(_SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(table)) + table)


def content_size(file: BinaryIO, file_bytes: int) -> int:
    """The length of the content that a packed segment states. Raises `DamagedSegmentError`."""
    table = _table(file, file_bytes)
    return _single_size(file, file_bytes) if table is None else table.contents[-1]


def unpacked(file: BinaryIO, file_bytes: int) -> io.BufferedReader:
    """The content of a packed segment. Reading raises `DamagedSegmentError`.

    It is seekable, unless a release before this wrote it: then it is read once.
    """
    table = _table(file, file_bytes)
    if table is not None:
        return io.BufferedReader(_Frames(file, table), _PIECE_BYTES)
    size = _single_size(file, file_bytes)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES)
    reader = decompressor.stream_reader(file, read_size=_PIECE_BYTES, read_across_frames=True, closefd=False)
    return io.BufferedReader(_Content(reader, size), _PIECE_BYTES)


def pieces(file: io.BufferedReader) -> Iterator[bytes]:
    """What is left of it, piece by piece."""
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _single_size(file: BinaryIO, file_bytes: int) -> int:
    """The length that a file states which is one frame."""
    file.seek(0)
    size = _stated_size(file.read(_HEADER_BYTES))
    file.seek(0)
    _verify_plausible(size, file_bytes)
    return size


def _stated_size(header: bytes) -> int:
    try:
        size = int(zstandard.get_frame_parameters(header).content_size)
    except zstandard.ZstdError as error:
        raise DamagedSegmentError("not a compressed segment") from error
    if size in {zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR}:
        raise DamagedSegmentError("the compressed segment does not state its length")
    return size


def _verify_plausible(size: int, file_bytes: int) -> None:
    if size > MOST_BYTES or size > max(_SMALL_BYTES, MOST_TIMES * file_bytes):
        raise DamagedSegmentError(f"{file_bytes} bytes that claim to hold {size} are no segment")


class _Table:
    """Where each frame begins in the file and in the content; one entry more for the end."""

    __slots__ = ("contents", "starts")

    def __init__(self, lengths: list[tuple[int, int]]) -> None:
        self.starts = list(accumulate((packed for packed, _ in lengths), initial=len(_OPENING)))
        self.contents = list(accumulate((content for _, content in lengths), initial=0))


def _table(file: BinaryIO, file_bytes: int) -> _Table | None:
    """The table at the end of a file; None where it is one frame."""
    file.seek(0)
    if file.read(len(_OPENING)) != _OPENING:
        return None
    table = _read_table(file, file_bytes)
    if table is None:
        raise DamagedSegmentError("the table of the compressed segment is damaged")
    _verify_plausible(table.contents[-1], file_bytes)
    return table


def _read_table(file: BinaryIO, file_bytes: int) -> _Table | None:
    """The table, if it fits the file to the byte."""
    file.seek(max(0, file_bytes - _FOOTER.size))
    footer = file.read(_FOOTER.size)
    if len(footer) < _FOOTER.size:
        return None
    count, flags, magic = _FOOTER.unpack(footer)
    length = count * _LENGTHS.size
    end = file_bytes - _FOOTER.size - length - _SKIPPABLE.size
    if magic != _TABLE_MAGIC or flags or not 0 < count <= _MOST_FRAMES or end < 0:
        return None
    file.seek(end)
    opening = _SKIPPABLE.unpack(file.read(_SKIPPABLE.size))
    first, *lengths = _LENGTHS.iter_unpack(file.read(length))
    fits = (
        opening == (_SKIPPABLE_MAGIC, length + _FOOTER.size)
        and first == (len(_OPENING), 0)
        and len(_OPENING) + sum(packed for packed, _ in lengths) == end
        and all(0 < packed <= _MOST_FRAME_BYTES for packed, _ in lengths)
        and all(content == FRAME_BYTES for _, content in lengths[:-1])
        and all(0 < content <= FRAME_BYTES for _, content in lengths[-1:])
    )
    return _Table(lengths) if fits else None


class _Frames(io.RawIOBase):
    """The content of a row of frames; one of them is unpacked at a time."""

    def __init__(self, file: BinaryIO, table: _Table) -> None:
        self._file = file
        self._table = table
        self._at = 0
        self._number = -1
        self._frame = b""

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """From any offset."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset of the content."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._table.contents[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """The next piece; 0 at the end."""
        view = memoryview(buffer)
        if self._at >= self._table.contents[-1]:
            return 0
        number = bisect_right(self._table.contents, self._at) - 1
        if number != self._number:
            self._number, self._frame = number, self._unpack(number)
        start = self._at - self._table.contents[number]
        piece = self._frame[start : start + view.nbytes]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def _unpack(self, number: int) -> bytes:
        starts, contents = self._table.starts, self._table.contents
        size = contents[number + 1] - contents[number]
        self._file.seek(starts[number])
        raw = self._file.read(starts[number + 1] - starts[number])
        if _stated_size(raw[:_HEADER_BYTES]) != size:  # so much memory is taken for it
            raise DamagedSegmentError("the compressed segment has another length than it states")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES)
        try:
            content = decompressor.decompress(raw, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DamagedSegmentError(f"the compressed segment is damaged ({error})") from error
        if len(content) != size:
            raise DamagedSegmentError("the compressed segment has another length than it states")
        return content


class _Content(io.RawIOBase):
    """The content of a frame, which has to be exactly as long as it claims to be."""

    def __init__(self, reader: zstandard.ZstdDecompressionReader, size: int) -> None:
        self._reader = reader
        self._left = size

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """The next piece; 0 at the end."""
        view = memoryview(buffer)
        try:
            taken = self._reader.readinto(view)
        except zstandard.ZstdError as error:
            raise DamagedSegmentError(f"the compressed segment is damaged ({error})") from error
        if taken > self._left or (taken == 0 < self._left and view.nbytes):
            raise DamagedSegmentError("the compressed segment has another length than it states")
        self._left -= taken
        return taken
