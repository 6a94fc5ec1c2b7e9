r"""The file of the order: which parts of which segments come one after the other. Append-only.

    entry    length (4 bytes), CRC-32 of the content (4 bytes), content (MessagePack)

    begin    version, id of the order, node
    source   a segment that the following entries name by its number here, from 0
    run      whole lines of a source, from one offset to another: the next places of the order

Anybody who can write to the audit folder can write here, so a reader believes nothing: lengths are bounded,
and what does not parse ends the file. A process that is killed leaves whole entries and perhaps a part of
one, which the next process cuts off.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import FILE_MODE, FOLDER_MODE, parse_segment_name, segment_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX_NAME = "index"
ORDER_NAME = "order"
VERSION = 1
MAX_RUN_BYTES = 256 << 10  # of lines, which a reader holds in memory; one line may be longer
_FRAME = struct.Struct("<II")
_MAX_CONTENT_BYTES = 4096


class BeginEntry(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The first entry of the file."""

    version: int
    order: str
    node: str


class SourceEntry(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A segment."""

    name: str

    def segment(self) -> tuple[str, int]:
        """Its chain and number. Raises `ValueError`."""
        parsed = parse_segment_name(self.name)
        if parsed is None or segment_name(*parsed) != self.name:
            raise ValueError("not a segment's name")
        return parsed


class RunEntry(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Lines of a source, one after the other."""

    source: int
    start: int
    end: int
    count: int
    seq: int  # of the last record of it; 0 when it does not parse
    listed_bytes: int  # in front of this run lie all records that so much of heads.jsonl covers
    listed_hash: str


Entry = BeginEntry | SourceEntry | RunEntry
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


def order_path(folder: Path) -> Path:
    """Where the order of an audit folder stands."""
    return folder / INDEX_NAME / ORDER_NAME


def begin_order(folder: Path, node: str) -> str:
    """Replace the order by a new, empty one; its id. Raises `OSError`."""
    path = order_path(folder)
    path.parent.mkdir(mode=FOLDER_MODE, exist_ok=True)
    order = os.urandom(8).hex()
    partial = path.with_suffix(".partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
        file.write(framed(BeginEntry(VERSION, order, node)))
    partial.replace(path)
    return order
