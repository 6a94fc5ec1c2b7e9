"""A part of the order, `PART_PLACES` records: where each stands, its time, and what it can be found by.

    magic, length and CRC-32 of the header, header (MessagePack), sections

    places    sources and runs, as in the journal
    keys      of each record, the latest time of its chain up to it, in microseconds (8 bytes each)
    offsets   of each record, where its line begins, from the beginning of its run (4 bytes each)
    names     the numbers of names, ascending (8 bytes each); where the records of each begin (4 bytes each)
              in `records`, and one more for the end; the CRC-32 of these (4 bytes each)
    records   of each name, which records have it: their numbers in the part (2 bytes each)
    ids       the numbers of ids, ascending (8 bytes each), and which record has each (2 bytes each)

A search reads the header, `names`, and the records of the names that it looks for; the rest only where a
record has all of them. Each section has a CRC: what a disk or a program spoils is noticed, and the index made
anew. Nothing here is evidence.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.index.journal import PART_PLACES, VERSION, RunEntry, SourceEntry, open_journal, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from gateway.audit.index.indexed_fields import IndexedFields

_MAGIC = b"CGINDEX1"
_OPENING = struct.Struct("<8sII")
_MAX_HEADER_BYTES = 64 << 10
_FIRST_READ_BYTES = 1024  # a header has some 300
_MAX_SECTION_BYTES = 64 << 20
_ID_BITS = 16


class DamagedIndexError(ValueError):
    """A file of the index is not what was written."""


class Section(msgspec.Struct, frozen=True, array_like=True):
    """Where a section is, behind the header."""

    start: int
    length: int
    crc: int


class PartHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a part holds."""

    version: int
    order: str
    number: int
    covered_by: int  # the largest of all runs up to its end
    listed_bytes: int  # of its first run
    listed_hash: str
    first_key: int
    last_key: int
    first_time: int  # of its records, in microseconds
    last_time: int
    is_odd: bool  # a record has a time that is not one of ours
    names: int
    ids: int
    sections: dict[str, Section]


class _Places(msgspec.Struct, frozen=True, array_like=True):
    sources: list[SourceEntry]
    runs: list[RunEntry]


_encode = msgspec.msgpack.Encoder().encode
_header = msgspec.msgpack.Decoder(PartHeader)
_places = msgspec.msgpack.Decoder(_Places)


class OpenPart:
    """What is known of the records of a part while it is being filled."""

    def __init__(self) -> None:
        self.keys = array("Q")
        self.offsets = array("I")
        self.first_time, self.last_time = (1 << 63) - 1, 0
        self.is_odd = False
        self._records: dict[int, array[int]] = {}
        self._ids: list[int] = []

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, fields: IndexedFields | None, time: int | None, key: int, offset: int) -> None:
        """The next record; without fields, a line that is none."""
        number = len(self.keys)
        self.keys.append(key)
        self.offsets.append(offset)
        if fields is None:
            return
        if time is None:
            self.is_odd = True
        else:
            self.first_time = min(self.first_time, time)
            self.last_time = max(self.last_time, time)
        records = self._records
        for name in fields.names():
            if name in records:
                records[name].append(number)
            else:
                records[name] = array("H", (number,))
        for one in fields.ids():
            self._ids.append(one << _ID_BITS | number)

    def write(
        self, path: Path, order: str, number: int, sources: Iterable[str], runs: list[RunEntry], covered: int
    ) -> None:
        """Write the part. Raises `OSError`."""
        names = array("Q", sorted(self._records))
        chosen = [self._records[name].tobytes() for name in names]
        starts = array("I", accumulate((len(one) for one in chosen), initial=0))
        crcs = array("I", map(zlib.crc32, chosen))
        self._ids.sort()
        ids = array("Q", (one >> _ID_BITS for one in self._ids))
        having = array("H", (one & 0xFFFF for one in self._ids))
        contents = {
            "places": _encode(_Places([SourceEntry(name) for name in sources], runs)),
            "keys": self.keys.tobytes(),
            "offsets": self.offsets.tobytes(),
            "names": names.tobytes() + starts.tobytes() + crcs.tobytes(),
            "records": b"".join(chosen),
            "ids": ids.tobytes() + having.tobytes(),
        }
        ends = [0, *accumulate(map(len, contents.values()))]
        header = PartHeader(
            version=VERSION,
            order=order,
            number=number,
            covered_by=covered,
            listed_bytes=runs[0].listed_bytes,
            listed_hash=runs[0].listed_hash,
            first_key=min(self.keys),
            last_key=max(self.keys),
            first_time=self.first_time,
            last_time=self.last_time,
            is_odd=self.is_odd,
            names=len(names),
            ids=len(ids),
            sections={
                name: Section(start, len(content), zlib.crc32(content))
                for (name, content), start in zip(contents.items(), ends, strict=False)
            },
        )
        encoded = _encode(header)
        opening = _OPENING.pack(_MAGIC, len(encoded), zlib.crc32(encoded))
        write_file(path, opening, encoded, *contents.values())


class IndexPart:
    """A part's file, open for reading. Everything raises `DamagedIndexError` for what was not written so."""

    def __init__(self, path: Path, order: str, number: int) -> None:
        try:
            self._descriptor = open_journal(path)
        except OSError as error:
            raise DamagedIndexError(f"{path.name} cannot be opened ({error.strerror})") from error
        try:
            self._name = path.name
            self.header, self._base = self._read_header(order, number)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._placed: _Places | None = None
        self.places: list[int] = []

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise DamagedIndexError(f"{self._name} cannot be read ({error.strerror})") from error

    def _read_header(self, order: str, number: int) -> tuple[PartHeader, int]:
        raw = self._pread(_FIRST_READ_BYTES, 0)
        if len(raw) < _OPENING.size:
            raise DamagedIndexError(f"{self._name} is cut")
        magic, length, crc = _OPENING.unpack_from(raw)
        if magic != _MAGIC or length > _MAX_HEADER_BYTES:
            raise DamagedIndexError(f"{self._name} is no part of an index")
        encoded = raw[_OPENING.size : _OPENING.size + length]
        if len(encoded) < length:
            encoded = self._pread(length, _OPENING.size)
        if zlib.crc32(encoded) != crc:
            raise DamagedIndexError(f"the header of {self._name} is damaged")
        try:
            header = _header.decode(encoded)
        except msgspec.DecodeError as error:
            raise DamagedIndexError(f"the header of {self._name} is damaged") from error
        if (header.version, header.order, header.number) != (VERSION, order, number):
            raise DamagedIndexError(f"{self._name} is another part")
        return header, _OPENING.size + length

    def _section(self, name: str) -> bytes:
        section = self.header.sections.get(name)
        if section is None or not 0 <= section.length <= _MAX_SECTION_BYTES or section.start < 0:
            raise DamagedIndexError(f"{self._name} lacks {name}")
        raw = self._pread(section.length, self._base + section.start)
        if len(raw) != section.length or zlib.crc32(raw) != section.crc:
            raise DamagedIndexError(f"{name} of {self._name} is damaged")
        return raw

    def verify(self) -> None:
        """Read all of it."""
        for name in self.header.sections:
            self._section(name)
        self.load()
        self.find([], [])
        self.find([0], [0])

    def load(self) -> None:
        """Read where its records stand."""
        if self._placed is not None:
            return
        try:
            placed = _places.decode(self._section("places"))
            self.sources = [one.segment() for one in placed.sources]
        except ValueError as error:  # msgspec's own is one
            raise DamagedIndexError(f"the places of {self._name} are damaged") from error
        self.places = [0, *accumulate(run.count for run in placed.runs)]
        if self.places[-1] != PART_PLACES or not all(run.fits(len(self.sources)) for run in placed.runs):
            raise DamagedIndexError(f"the places of {self._name} are damaged")
        self._placed = placed

    @property
    def runs(self) -> list[RunEntry]:
        """Its runs, once it is loaded."""
        self.load()
        return [] if self._placed is None else self._placed.runs

    def column(self, name: str) -> Sequence[int]:
        """The keys or the offsets of its records."""
        return _numbers(self._section(name), "Q" if name == "keys" else "I", PART_PLACES)

    def find(self, names: list[int], ids: list[int]) -> list[int] | None:
        """Which records have all of these names, and one of these ids; None for all records."""
        found: set[int] | None = None
        if ids:
            raw, count = self._section("ids"), self.header.ids
            known = _numbers(raw[: 8 * count], "Q", count)
            having = _numbers(raw[8 * count :], "H", count)
            found = {
                having[at] for one in ids for at in range(bisect_left(known, one), bisect_right(known, one))
            }
        if names:
            raw, count = self._section("names"), self.header.names
            numbers = _numbers(raw[: 8 * count], "Q", count)
            starts = _numbers(raw[8 * count : 12 * count + 4], "I", count + 1)
            crcs = _numbers(raw[12 * count + 4 :], "I", count)
            chosen = []
            for name in names:
                at = bisect_left(numbers, name)
                if at == count or numbers[at] != name:
                    return []
                chosen.append((starts[at + 1] - starts[at], starts[at], crcs[at]))
            for length, start, crc in sorted(chosen):
                records = self._records(start, length, crc)
                found = set(records) if found is None else found.intersection(records)
                if not found:
                    return []
        return None if found is None else sorted(found)

    def _records(self, start: int, length: int, crc: int) -> Sequence[int]:
        section = self.header.sections["records"]
        if not 0 <= length <= 2 * PART_PLACES or section.start < 0:
            raise DamagedIndexError(f"the records of {self._name} are damaged")
        raw = self._pread(length, self._base + section.start + start)
        if zlib.crc32(raw) != crc:
            raise DamagedIndexError(f"the records of {self._name} are damaged")
        return _numbers(raw, "H", length // 2)

    def locate(self, number: int) -> int:
        """The number of the run that holds a record."""
        return bisect_right(self.places, number) - 1


def _numbers(raw: bytes, code: Any, count: int) -> Sequence[int]:
    found: array[int] = array(code)
    if len(raw) != count * found.itemsize:
        raise DamagedIndexError("a section has another length than its header says")
    found.frombytes(raw)
    return found
