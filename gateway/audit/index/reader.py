"""Read the records of a folder in the order of its index: pages behind a cursor, and searches.

Nothing of an index is believed: each record is read from its segment, and a search compares it with the
query. Many readers may work beside one indexer.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import segment_name
from gateway.audit.index.cursor import Cursor
from gateway.audit.index.order import KnownOrder
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import opened
from gateway.audit.record import parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.audit.events import Query
    from gateway.audit.index.journal import RunEntry
    from gateway.audit.record import Record

MOST_READ_BYTES = 64 << 20  # of segments for one page, whether or not a record matches


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


class IndexReader:
    """Reads one folder. Its calls block; threads may share it."""

    def __init__(self, folder: Path, node: str) -> None:
        self._folder = folder
        self._node = node
        self._known = KnownOrder(folder)
        self._mutex = threading.Lock()

    def start(self) -> Cursor:
        """In front of the oldest record that is kept."""
        with self._mutex:
            self._known.refresh()
            return self._cursor(0)

    def end(self) -> Cursor:
        """Behind the newest record that is in order."""
        with self._mutex:
            self._known.refresh()
            return self._cursor(self._known.end)

    def has_more(self, after: Cursor) -> bool:
        """Whether a record is in order behind the cursor. Costs one `stat` while nothing changes."""
        with self._mutex:
            if self._known.is_changed():
                self._known.refresh()
            return self._place(after) < self._known.end

    def read(
        self, after: Cursor, limit: int, query: Query | None = None, max_bytes: int = 4 << 20
    ) -> IndexPage:
        """The next records that match, at most `limit` and about `max_bytes`; one at least, if there is one.

        A page may be empty although more follows: then so much was read that the caller should be asked
        again. Raises `OSError` when a segment cannot be read.
        """
        with self._mutex:
            if self._known.is_changed():
                self._known.refresh()
            known = self._known
            place = self._place(after)
            records: list[IndexedRecord] = []
            removed = size = looked_at = 0
            number = known.run_at(place)
            while number < len(known.runs) and len(records) < limit and looked_at < MOST_READ_BYTES:
                run, first = known.runs[number], known.places[number]
                lines = self._lines(run)
                if lines is None:
                    removed += first + run.count - place
                    place = first + run.count
                    number += 1
                    continue
                looked_at += run.end - run.start
                for line in lines[place - first :]:
                    place += 1
                    record = _parsed(line, query)
                    if record is None:
                        continue
                    records.append(IndexedRecord(line, self._cursor(place), record))
                    size += len(line)
                    if len(records) >= limit or size >= max_bytes:
                        break
                else:
                    place = first + run.count
                    number += 1
                if size >= max_bytes:
                    break
            return IndexPage(
                records=records,
                cursor=self._cursor(place),
                is_at_end=place >= known.end,
                removed=removed,
            )

    def search(self, query: Query, limit: int, *, is_newest_first: bool = True) -> Iterator[IndexedRecord]:
        """The records that match, at most `limit`, in the order or against it."""
        with self._mutex:
            self._known.refresh()
            runs = list(zip(self._known.runs, self._known.places, strict=False))
        found = 0
        for run, first in reversed(runs) if is_newest_first else runs:
            with self._mutex:
                numbered = list(enumerate(self._lines(run) or (), first + 1))
                cursors = [self._cursor(place) for place, _ in numbered]
            matching = [
                IndexedRecord(line, cursor, record)
                for (_, line), cursor in zip(numbered, cursors, strict=True)
                if (record := _parsed(line, query)) is not None
            ]
            for one in reversed(matching) if is_newest_first else matching:
                if found >= limit:
                    return
                found += 1
                yield one

    def _place(self, cursor: Cursor) -> int:
        """Where a cursor is in the order that is there now."""
        if cursor.node == self._node and cursor.order == self._known.order:
            return min(cursor.place, self._known.end)
        return 0

    def _cursor(self, place: int) -> Cursor:
        return Cursor(self._node, self._known.order, place)

    def _lines(self, run: RunEntry) -> list[bytes] | None:
        """The lines of a run, without newlines; None when its segment is no more, or is another one."""
        path = self._folder / segment_name(*self._known.sources[run.source])
        with suppress(FileNotFoundError, DamagedSegmentError), opened(path, run.start) as file:
            block = file.read(run.end - run.start)
            lines = block.split(b"\n")
            if lines.pop() == b"" and len(lines) == run.count:
                return lines
        return None


def _parsed(line: bytes, query: Query | None) -> Record | None:
    """The record of a line, if it is one and matches."""
    try:
        record = parse_line(line)
    except ValueError:
        return None  # damaged: `verify` reports it
    return record if query is None or query.matches(record) else None
