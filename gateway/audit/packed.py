"""Closed segments in compressed form (zstd): write one, and read one within bounds.

A packed segment is one zstd frame that states its content's length and has a checksum. Whoever can write to
the folder can put any file there, so a reader trusts nothing of it: a frame without a length, one that claims
more than `MOST_TIMES` its size or more than any segment has, a large window, more or less content than
claimed, and what follows the frame are all damage. Records hold digests that cannot be compressed, so
an honest segment shrinks to a tenth at most. Content is produced in small pieces, whatever the frame says:
memory is bounded.

The only module that imports the compression library.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import WriteableBuffer

PACKED_SUFFIX = ".zst"
MOST_BYTES = 4 << 30  # of the content: four times the largest setting
MOST_TIMES = 100  # content over file; honest ones have about 5
_SMALL_BYTES = 1 << 20  # of content, that any file may have
_MOST_WINDOW_BYTES = 8 << 20
_PIECE_BYTES = 128 << 10
_HEADER_BYTES = 18  # the longest that a frame's header may be
_LEVEL = 3  # 300 MB a second; higher levels gain a few per cent


class DamagedSegmentError(ValueError):
    """It is not a segment, or not a whole one."""


def pack(source: BinaryIO, size: int, target: BinaryIO, note: Callable[[bytes], object]) -> None:
    """Compress a segment of this size. `note` sees each piece of the content."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
    left = size
    with compressor.stream_writer(target, size=size, closefd=False) as writer:
        while left and (piece := source.read(min(left, _PIECE_BYTES))):
            note(piece)
            writer.write(piece)
            left -= len(piece)
    if left:
        raise DamagedSegmentError("it was cut while it was compressed")


def content_size(file: BinaryIO, file_bytes: int) -> int:
    """The length of the content that a packed segment states. Raises `DamagedSegmentError`."""
    header = file.read(_HEADER_BYTES)
    file.seek(0)
    try:
        frame = zstandard.get_frame_parameters(header)
    except zstandard.ZstdError as error:
        raise DamagedSegmentError("not a compressed segment") from error
    size = int(frame.content_size)
    if size in {zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR}:
        raise DamagedSegmentError("the compressed segment does not state its length")
    if size > MOST_BYTES or size > max(_SMALL_BYTES, MOST_TIMES * file_bytes):
        raise DamagedSegmentError(f"{file_bytes} bytes that claim to hold {size} are no segment")
    return size


def unpacked(file: BinaryIO, file_bytes: int) -> io.BufferedReader:
    """The content of a packed segment, to be read once. Reading raises `DamagedSegmentError`."""
    size = content_size(file, file_bytes)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES)
    reader = decompressor.stream_reader(file, read_size=_PIECE_BYTES, read_across_frames=True, closefd=False)
    return io.BufferedReader(_Content(reader, size), _PIECE_BYTES)


def pieces(file: io.BufferedReader) -> Iterator[bytes]:
    """What is left of it, piece by piece."""
    while piece := file.read(_PIECE_BYTES):
        yield piece


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
