"""Read the records of a folder in the order of its index: pages behind a cursor, and searches.

Nothing of an index is believed: each record is read from its segment, and a search compares it with the
query. Many readers may work beside one indexer. A part that turns out to be damaged is reported to it, and
readers wait for the index that it then makes; a search goes on without one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import group_segments, segment_name
from gateway.audit.index.cursor import Cursor
from gateway.audit.index.hits import Search, SegmentFiles
from gateway.audit.index.indexed_fields import id_number, wanted_names
from gateway.audit.index.journal import PART_PLACES, report_damage
from gateway.audit.index.listed_heads import is_still_listed
from gateway.audit.index.order import KnownOrder
from gateway.audit.index.part import DamagedIndexError
from gateway.audit.packed import PACKED_SUFFIX, DamagedSegmentError
from gateway.audit.reading import size_of
from gateway.audit.record import parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.audit.events import Query
    from gateway.audit.index.hits import FoundRecord
    from gateway.audit.index.journal import RunEntry
    from gateway.audit.index.part import IndexPart
    from gateway.audit.record import Record

MOST_READ_BYTES = 16 << 20  # of segments for one page, whether or not a record matches
MOST_LOOKED_AT = 1_000_000  # places for one page that the index itself rules out


class IndexedRecord:
    """One record, as it stands in its segment. Nothing about it is verified."""

    __slots__ = ("_record", "cursor", "line")

    def __init__(self, line: bytes, cursor: Cursor, record: Record | None = None) -> None:
        self.line = line  # without the newline
        self.cursor = cursor  # behind this record
        self._record = record

    @property
    def record(self) -> Record:
        """The record, parsed once."""
        if self._record is None:
            self._record = parse_line(self.line)
        return self._record


class IndexPage(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. The next page begins at `cursor`, also where nothing matched."""

    records: list[IndexedRecord]
    cursor: Cursor
    is_at_end: bool  # nothing more is in order behind the cursor
    removed: int  # records between the cursors that retention has removed


@dataclass(slots=True)
class _Reading:
    """A page that is being filled."""

    limit: int
    max_bytes: int
    query: Query | None
    records: list[IndexedRecord] = field(default_factory=list)
    size: int = 0
    read_bytes: int = 0
    looked_at: int = 0
    removed: int = 0

    def is_full(self) -> bool:
        """Whether the page ends here."""
        return (
            len(self.records) >= self.limit
            or self.size >= self.max_bytes
            or self.read_bytes >= MOST_READ_BYTES
            or self.looked_at >= MOST_LOOKED_AT
        )

    def take(self, line: bytes, cursor: Cursor) -> None:
        """Add a record, if the line is one that matches."""
        try:
            record = parse_line(line)
        except ValueError:
            return  # damaged: `verify` reports it
        if self.query is None or self.query.matches(record):
            self.records.append(IndexedRecord(line, cursor, record))
            self.size += len(line)


class IndexReader:
    """Reads one folder. Its calls block; threads may share it."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder = folder
        self._node = node
        self._known = KnownOrder(folder)
        self._files = SegmentFiles(folder)
        self._mutex = threading.Lock()
        self._damaged_epoch: str | None = None  # nothing is read of it any more

    def close(self) -> None:
        """Close its files. It may be used again."""
        with self._mutex:
            self._files.close()
            self._known.close()

    def start(self) -> Cursor:
        """In front of the oldest record that is kept."""
        with self._mutex:
            self._refresh()
            return Cursor(self._node, self._known.epoch, self._known.first)

    def end(self) -> Cursor:
        """Behind the newest record that is in order."""
        with self._mutex:
            self._refresh()
            known, begin = self._known, self._known.begin
            last = known.runs[-1] if known.runs else begin
            if last is None:
                return Cursor(self._node, "", 0)
            return Cursor(self._node, known.epoch, known.end, last.listed_bytes, last.listed_hash)

    def order_id(self) -> str:
        """The id of the order: the same as long as the index is not made anew. Empty without an index."""
        with self._mutex:
            self._refresh()
            return "" if self._known.begin is None else self._known.begin.order

    def counts_still(self, cursor: Cursor) -> bool:
        """Whether all places in front of a cursor are in the order as they were when it was made."""
        with self._mutex:
            self._refresh()
            begin = self._known.begin
            valid = None if begin is None else begin.valid_places(cursor.order)
            return valid is not None and cursor.node == self._node and cursor.place <= valid

    def has_more(self, after: Cursor) -> bool:
        """Whether a record is in order behind the cursor. Costs one `lstat` while nothing changes."""
        with self._mutex:
            self._refresh()
            if self._known.epoch == self._damaged_epoch:
                return False
            try:
                place = self._place(after)
            except DamagedIndexError:
                self._report()
                return False
            return place is not None and place < self._known.end

    def read(
        self, after: Cursor, limit: int, query: Query | None = None, max_bytes: int = 4 << 20
    ) -> IndexPage:
        """The next records that match, at most `limit`, until they have `max_bytes`.

        A page may be empty although more follows: so much was read for it that the caller should be asked
        again. Raises `OSError` when a segment cannot be read.
        """
        with self._mutex:
            self._refresh()
            try:
                place = None if self._known.epoch == self._damaged_epoch else self._place(after)
                if place is not None:
                    return self._page(place, after, _Reading(limit, max_bytes, query))
            except DamagedIndexError:
                self._report()
            finally:
                self._files.close()  # what is packed or removed meanwhile must not keep its room on the disk
            return IndexPage(records=[], cursor=after, is_at_end=True, removed=0)

    def search(self, query: Query, limit: int, *, is_newest_first: bool = True) -> Iterator[IndexedRecord]:
        """The records that match, at most `limit`, by time. Records that are not in order yet are found too.

        The cursor of such a record is behind all that is. Raises `OSError` when a segment cannot be read.
        """
        end = self.end()
        for count, found in enumerate(search_log(self._folder, query, is_newest_first=is_newest_first), 1):
            place = found.hit.place
            cursor = end if place < 0 else Cursor(self._node, end.order, place + 1)
            yield IndexedRecord(found.line, cursor, found.record)
            if count >= limit:
                return

    def _report(self) -> None:
        """Ask for a new index, and wait for it."""
        if report_damage(self._folder, self._known.begin):
            self._damaged_epoch = self._known.epoch

    def _refresh(self) -> None:
        if self._known.is_changed():
            self._known.refresh()

    def _place(self, cursor: Cursor) -> int | None:
        """Where a cursor is in the order that is there now; None when that does not reach so far yet."""
        known = self._known
        if known.begin is None:
            return 0 if cursor.order == "" and cursor.place == 0 else None
        valid = known.begin.valid_places(cursor.order)
        if valid is not None and cursor.place <= min(valid, known.end):
            return cursor.place
        if not cursor.order or not is_still_listed(self._folder, cursor.listed_bytes, cursor.listed_hash):
            return known.first
        if known.covered_by <= cursor.listed_bytes:
            return None  # all that is in order yet was read before
        return known.resume(cursor.listed_bytes)

    def _page(self, place: int, after: Cursor, reading: _Reading) -> IndexPage:
        known = self._known
        if place < known.first:
            reading.removed, place = known.first - place, known.first
        cursor = after if after.order == known.epoch and place == after.place else None
        while place < known.end and not reading.is_full():
            if place < known.places[0]:
                place, cursor = self._read_part(place, reading)
            else:
                place, cursor = self._read_runs(
                    place, known.runs, known.sources, known.places, known.run_at(place), reading
                )
        if cursor is None:
            cursor = Cursor(self._node, known.epoch, place)
        is_at_end = place >= known.end
        return IndexPage(records=reading.records, cursor=cursor, is_at_end=is_at_end, removed=reading.removed)

    def _read_part(self, place: int, reading: _Reading) -> tuple[int, Cursor]:
        part = self._known.part(place // PART_PLACES)
        base, query = part.header.number * PART_PLACES, reading.query
        names = [] if query is None else wanted_names(query)
        ids = [] if query is None or query.record_id is None else [id_number(query.record_id)]
        found = part.find(names, ids)
        part.load()
        if found is None:
            places = [base + one for one in part.places]
            return self._read_runs(place, part.runs, part.sources, places, part.locate(place - base), reading)
        reading.looked_at += base + PART_PLACES - place
        cursor = self._cursor(base + PART_PLACES, part.runs[-1])
        offsets = part.column("offsets") if found else ()
        for one in found:
            if base + one < place:
                continue
            if reading.is_full():
                return place, cursor
            at = part.locate(one)
            run = part.runs[at]
            is_last = one + 1 == part.places[at + 1]
            start = run.start + offsets[one]
            end = run.end if is_last else run.start + offsets[one + 1]
            if not run.start <= start < end <= run.end:
                raise DamagedIndexError("a record is not within its run")
            line = self._files.read(*part.sources[run.source], start, end - start)
            reading.read_bytes += end - start
            reading.removed += self._removed_before(part, place - base, one)
            place = base + one + 1
            cursor = self._cursor(place, run)
            if not line.endswith(b"\n"):
                reading.removed += 1
                continue
            reading.take(line[:-1], cursor)
        if reading.is_full():
            return place, cursor
        reading.removed += self._removed_before(part, place - base, PART_PLACES)
        return base + PART_PLACES, self._cursor(base + PART_PLACES, part.runs[-1])

    def _removed_before(self, part: IndexPart, first: int, end: int) -> int:
        """How many of these records of a part are removed, by the segments that are gone."""
        removed = 0
        for at in range(part.locate(first), len(part.runs)):
            if part.places[at] >= end:
                break
            if self._is_gone(part.sources[part.runs[at].source]):
                removed += min(end, part.places[at + 1]) - max(first, part.places[at])
        return removed

    def _is_gone(self, source: tuple[str, int]) -> bool:
        path = self._folder / segment_name(*source)
        return not (path.exists() or path.with_name(path.name + PACKED_SUFFIX).exists())

    def _read_runs(
        self,
        place: int,
        runs: list[RunEntry],
        sources: list[tuple[str, int]],
        places: Sequence[int],
        at: int,
        reading: _Reading,
    ) -> tuple[int, Cursor]:
        """Read whole runs, from a place on, until the page is full or they end."""
        cursor = self._cursor(place, runs[at])
        while at < len(runs) and not reading.is_full():
            run, first = runs[at], places[at]
            block = self._files.read(*sources[run.source], run.start, run.end - run.start)
            lines = block.split(b"\n")[:-1]
            reading.read_bytes += len(block)
            if len(block) == run.end - run.start and len(lines) == run.count:
                for line in lines[place - first :]:
                    place += 1
                    cursor = self._cursor(place, run)
                    reading.take(line, cursor)
                    if reading.is_full():
                        break
            else:  # removed by retention, or cut: what is left of it, the next index will hold
                reading.removed += first + run.count - place
                reading.looked_at += first + run.count - place
                place = first + run.count
                cursor = self._cursor(place, run)
            at += place == first + run.count
        return place, cursor

    def _cursor(self, place: int, run: RunEntry) -> Cursor:
        return Cursor(self._node, self._known.epoch, place, run.listed_bytes, run.listed_hash)


def search_log(folder: Path, query: Query, *, is_newest_first: bool = False) -> Iterator[FoundRecord]:
    """The records of a folder that match, by time; with its index, as far as there is one that is whole.

    Raises `OSError` when a segment cannot be read.
    """
    last = None
    for attempt in range(3):
        known = KnownOrder(folder)
        if attempt < 2:  # noqa: PLR2004 -- the index was replaced meanwhile, once; then without it
            known.refresh()
        search = Search(folder, known, query, is_newest_first=is_newest_first)
        try:
            for found in search.run():
                rank = found.hit[:5]
                if last is not None and (rank >= last if is_newest_first else rank <= last):
                    continue  # it was found before
                yield found
                last = rank
        except DamagedIndexError:
            report_damage(folder, known.begin)
        else:
            return
        finally:
            known.close()


def unindexed_bytes(folder: Path) -> int:
    """How many bytes of segments are not in order yet. Raises `OSError` when the folder cannot be read."""
    known = KnownOrder(folder)
    known.refresh()
    complete = known.complete()
    behind = 0
    for chain, segments in group_segments(folder.iterdir()).items():
        state = known.chains.get(chain)
        for number, path in segments:
            if segment_name(chain, number) in complete:
                continue
            with suppress(OSError, DamagedSegmentError):
                is_open = state is not None and number == state.number
                behind += max(0, size_of(path) - (state.offset if is_open and state is not None else 0))
    return behind


__all__ = ["IndexPage", "IndexReader", "IndexedRecord", "search_log", "unindexed_bytes"]
