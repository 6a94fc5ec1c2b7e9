r"""The file of the order: which parts of which segments come one after the other. Append-only.

    entry    length (4 bytes), CRC-32 of the content (4 bytes), content (MessagePack)

    begin    version, id of the order, node, and which places came before
    chain    how far a chain was in order then
    source   a segment that the following runs name by its number here, from 0
    run      whole lines of a source, from one offset to another: the next places of the order

It holds the newest places only. Once they are `PART_PLACES`, they become a part (`part.py`), a file of its
own, and the next journal takes the place of this one. A file in the same form says of each segment that is
complete in the order how long it is and when it was written.

A process that goes on with an order begins an epoch of it, whose id is what cursors carry. A machine that
lost power may have lost the end of the journal, which readers had seen: what comes there now is something
else. So a cursor of an epoch before counts up to where the next one began, and no further.

Anybody who can write to the audit folder can write here, so a reader believes nothing: lengths are bounded,
and what does not parse ends the file. A process that is killed leaves whole entries and perhaps a part of
one, which the next process cuts off.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, parse_segment_name, segment_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX_NAME = "index"
ORDER_NAME = "order"
COMPLETE_NAME = "complete"
DAMAGED_NAME = "damaged"
VERSION = 1
PART_PLACES = 8192  # a place in a part has 16 bits
MAX_RUN_BYTES = 256 << 10  # of lines, which a reader holds in memory; one line may be longer
UNCOVERED = (1 << 63) - 1
MOST_EPOCHS = 64
_FRAME = struct.Struct("<II")
_MAX_CONTENT_BYTES = 4096
_BLOCK_BYTES = 1 << 20


class BeginEntry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag=0):
    """The first entry of the file."""

    version: int
    order: str
    node: str
    part: int = 0  # that the runs of this file will be; those before it have files
    first_part: int = 0  # retention removed all records of those before it
    covered_by: int = 0  # the largest of all runs before
    listed_bytes: int = 0  # of the last run before
    listed_hash: str = ""
    epochs: tuple[tuple[str, int], ...] = ()
    chains: int = 0  # entries of chains that follow: a file that was cut among them is no order

    def epoch(self) -> str:
        """The id that cursors carry now."""
        return self.epochs[-1][0] if self.epochs else self.order

    def valid_places(self, epoch: str) -> int | None:
        """How many places of an epoch are still the same; None when it is not known any more."""
        for at, (one, _) in enumerate(self.epochs):
            if one == epoch:
                return self.epochs[at + 1][1] if at + 1 < len(self.epochs) else UNCOVERED
        return UNCOVERED if epoch == self.epoch() else None

    def next_epochs(self, place: int) -> tuple[tuple[str, int], ...]:
        """The epochs once another process goes on behind so many places."""
        return (*self.epochs[-(MOST_EPOCHS - 1) :], (os.urandom(8).hex(), place))


class ChainEntry(msgspec.Struct, array_like=True, tag=1, gc=False):
    """How far a chain is in order: all segments before `number`, and `offset` bytes of that one."""

    chain: str
    number: int = 0
    offset: int = 0
    seq: int = 0
    key: int = 0  # the latest time of its records so far, in microseconds


class SourceEntry(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A segment."""

    name: str

    def segment(self) -> tuple[str, int]:
        """Its chain and number. Raises `ValueError`."""
        parsed = parse_segment_name(self.name)
        if parsed is None or segment_name(*parsed) != self.name:
            raise ValueError("not a segment's name")
        return parsed


class RunEntry(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Lines of a source, one after the other."""

    source: int
    start: int
    end: int
    count: int
    seq: int  # of the last record of it; 0 when it does not parse
    key: int  # the latest time of its chain so far
    covered_by: int  # so much of heads.jsonl covers all records of it; `UNCOVERED` when that was not known
    listed_bytes: int  # in front of this run lie all records that so much of heads.jsonl covers
    listed_hash: str

    def fits(self, sources: int) -> bool:
        """Whether it can be a run at all."""
        return (
            0 <= self.source < sources
            and 0 <= self.start < self.end <= UNCOVERED
            and 0 < self.count <= min(PART_PLACES, self.end - self.start)
        )


class CompleteEntry(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A segment that is in order as a whole: its length and time then. Packing changes neither."""

    name: str
    bytes: int
    written_ns: int


Entry = BeginEntry | ChainEntry | SourceEntry | RunEntry | CompleteEntry
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def framed(entry: Entry) -> bytes:
    """The bytes of an entry."""
    content = _encode(entry)
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


def unframed(raw: bytes) -> Iterator[tuple[Entry, int]]:
    """The entries of these bytes, and where each ends; up to what does not parse."""
    at = 0
    while len(raw) - at > _FRAME.size:
        length, crc = _FRAME.unpack_from(raw, at)
        content = raw[at + _FRAME.size : at + _FRAME.size + length]
        if length > _MAX_CONTENT_BYTES or len(content) != length or zlib.crc32(content) != crc:
            return
        try:
            entry = _decode(content)
        except msgspec.DecodeError:
            return
        at += _FRAME.size + length
        yield entry, at


def read_entries(descriptor: int, offset: int) -> Iterator[tuple[Entry, int]]:
    """The entries of an open file from this offset on, and the offset behind each."""
    while raw := os.pread(descriptor, _BLOCK_BYTES, offset):
        start = offset
        for entry, end in unframed(raw):
            offset = start + end
            yield entry, offset
        if offset == start:
            return


def open_journal(path: Path) -> int:
    """A descriptor to read a file of the index. Raises `OSError`."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def order_path(folder: Path) -> Path:
    """Where the order of an audit folder stands."""
    return folder / INDEX_NAME / ORDER_NAME


def part_path(folder: Path, order: str, number: int) -> Path:
    """Where a part of an order stands."""
    return folder / INDEX_NAME / f"{order}-{number:08d}.part"


def write_file(path: Path, *pieces: bytes) -> None:
    """Write a file that is there whole or not at all. Raises `OSError`."""
    partial = path.with_suffix(".partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
        for piece in pieces:
            file.write(piece)
    partial.replace(path)


def open_appending(path: Path) -> int:
    """A descriptor to append to a file of the index. Raises `OSError`."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


def report_damage(folder: Path, begin: BeginEntry | None) -> bool:
    """Ask for a new index: what is there is damaged. A folder that cannot be written to stays as it is.

    `begin` is that of the order in which damage was found. False when another one is there, or fewer parts
    are: who still read of the one before found nothing but that, and a new index would be made for nothing.
    """
    there = _find_begin(folder)
    if begin is not None and there is not None:
        is_same = there.order == begin.order and there.first_part == begin.first_part
        if not is_same:
            return False
    with suppress(OSError):
        os.close(open_appending(folder / INDEX_NAME / DAMAGED_NAME))
    return True


def _find_begin(folder: Path) -> BeginEntry | None:
    """The first entry of the order that is there."""
    try:
        descriptor = open_journal(order_path(folder))
    except OSError:
        return None
    try:
        entry, _ = next(read_entries(descriptor, 0), (None, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return entry if isinstance(entry, BeginEntry) else None
