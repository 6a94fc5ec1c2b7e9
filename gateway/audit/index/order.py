"""The order as it is known from its files: the newest runs from the journal, the rest part by part."""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import TYPE_CHECKING

from gateway.audit.folder import parse_segment_name
from gateway.audit.index.journal import (
    COMPLETE_NAME,
    INDEX_NAME,
    PART_PLACES,
    VERSION,
    BeginEntry,
    ChainEntry,
    CompleteEntry,
    RunEntry,
    SourceEntry,
    open_journal,
    order_path,
    part_path,
    read_entries,
)
from gateway.audit.index.part import IndexPart

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.index.journal import Entry
    from gateway.audit.index.part import PartHeader

NO_FILE = (0, 0, 0)
MOST_OPEN_PARTS = 256


class KnownOrder:
    """What the index of a folder held at the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = order_path(folder)
        self._state = NO_FILE
        self._parts: dict[int, IndexPart] = {}
        self._forget()

    def _forget(self) -> None:
        self.begin: BeginEntry | None = None
        self.chains: dict[str, ChainEntry] = {}
        self.chains_before: dict[str, ChainEntry] = {}  # in front of the first run of the journal
        self.sources: list[tuple[str, int]] = []
        self.runs: list[RunEntry] = []
        self.places: list[int] = [0]  # in front of each run of the journal, and behind the last one
        self.size = 0  # of the journal's whole entries
        self._opening = b""
        self.is_damaged = False
        self._close_parts()

    def _close_parts(self) -> None:
        for part in self._parts.values():
            part.close()
        self._parts = {}
        self._headers: dict[int, PartHeader] = {}

    def close(self) -> None:
        """Close its files."""
        self._close_parts()

    @property
    def order(self) -> str:
        """Its id; empty when there is none."""
        return "" if self.begin is None else self.begin.order

    @property
    def epoch(self) -> str:
        """What cursors carry; empty when there is no order."""
        return "" if self.begin is None else self.begin.epoch()

    @property
    def parts(self) -> range:
        """The numbers of its parts."""
        return range(0) if self.begin is None else range(self.begin.first_part, self.begin.part)

    @property
    def first(self) -> int:
        """The first place whose record may still be there."""
        return 0 if self.begin is None else self.begin.first_part * PART_PLACES

    @property
    def end(self) -> int:
        """How many records are in order."""
        return self.places[-1]

    @property
    def covered_by(self) -> int:
        """The largest of all its runs."""
        before = 0 if self.begin is None else self.begin.covered_by
        return max((run.covered_by for run in self.runs), default=before)

    def is_changed(self) -> bool:
        """Whether the journal is another file, or longer, than at the last `refresh`."""
        try:
            status = self._path.lstat()
        except OSError:
            return self._state != NO_FILE
        return self._state != _state_of(status)

    def refresh(self) -> None:
        """Read on, or anew when the file is another one. A file that is gone or damaged has no order."""
        try:
            descriptor = open_journal(self._path)
        except OSError:
            self._state = NO_FILE
            self._forget()
            return
        try:
            status = os.fstat(descriptor)
            # A file system may give the inode of a file that was replaced to the next one.
            if status.st_size < self.size or os.pread(descriptor, len(self._opening), 0) != self._opening:
                self._forget()
            self._state = _state_of(status)
            for entry, end in read_entries(descriptor, self.size):
                if not self._take(entry):
                    self.is_damaged = True
                    return
                if not self.size:
                    self._opening = os.pread(descriptor, end, 0)
                self.size = end
        except OSError:
            self.is_damaged = True
        finally:
            os.close(descriptor)

    def _take(self, entry: Entry) -> bool:
        match entry:
            case BeginEntry():
                fits = entry.version == VERSION and 0 <= entry.first_part <= entry.part
                if self.begin is not None or not fits:
                    return False
                self.begin = entry
                self.places = [entry.part * PART_PLACES]
            case ChainEntry():
                self.chains[entry.chain] = self.chains_before[entry.chain] = entry
            case SourceEntry():
                try:
                    self.sources.append(entry.segment())
                except ValueError:
                    return False
            case RunEntry():
                is_full = self.places[-1] + entry.count > self.places[0] + PART_PLACES
                if self.begin is None or is_full or not entry.fits(len(self.sources)):
                    return False
                chain, number = self.sources[entry.source]
                self.runs.append(entry)
                self.places.append(self.places[-1] + entry.count)
                self.chains[chain] = ChainEntry(chain, number, entry.end, entry.seq, entry.key)
            case CompleteEntry():
                return False
        return True

    def run_at(self, place: int) -> int:
        """The number of the run of the journal that holds a place; the number of runs for the end."""
        return bisect_right(self.places, place) - 1

    def part(self, number: int) -> IndexPart:
        """A part, opened. Raises `DamagedIndexError`."""
        part = self._parts.get(number)
        if part is None:
            if len(self._parts) >= MOST_OPEN_PARTS:
                self._parts.pop(next(iter(self._parts))).close()
            part = self._parts[number] = IndexPart(
                part_path(self._folder, self.order, number), self.order, number
            )
        return part

    def header(self, number: int) -> PartHeader:
        """The header of a part. Raises `DamagedIndexError`."""
        header = self._headers.get(number)
        if header is None:
            header = self._headers[number] = self.part(number).header
        return header

    def complete(self) -> dict[str, CompleteEntry]:
        """The segments that are in order as a whole, by name.

        The file may be ahead of the journal when a process was killed between the two: what it says more
        does not count.
        """
        try:
            descriptor = open_journal(self._folder / INDEX_NAME / COMPLETE_NAME)
        except OSError:
            return {}
        found: dict[str, CompleteEntry] = {}
        is_ours = False
        try:
            for entry, _ in read_entries(descriptor, 0):
                if isinstance(entry, BeginEntry):
                    is_ours = entry.order == self.order
                elif is_ours and isinstance(entry, CompleteEntry) and self._is_read(entry):
                    found[entry.name] = entry
        except OSError:
            return {}
        finally:
            os.close(descriptor)
        return found

    def _is_read(self, entry: CompleteEntry) -> bool:
        parsed = parse_segment_name(entry.name)
        state = None if parsed is None else self.chains.get(parsed[0])
        if parsed is None or state is None:
            return False
        return parsed[1] < state.number or (parsed[1] == state.number and entry.bytes == state.offset)

    def resume(self, passed: int) -> int:
        """The first place whose record is not known to be covered by so much of heads.jsonl."""
        parts = self.parts
        low, high = parts.start, parts.stop
        while low < high:  # the first part with a run that is covered by more
            middle = (low + high) // 2
            if self.header(middle).covered_by > passed:
                high = middle
            else:
                low = middle + 1
        if low == parts.stop:
            runs, places = self.runs, self.places
        else:
            part = self.part(low)
            runs = part.runs
            places = [low * PART_PLACES + place for place in part.places]
        for run, place in zip(runs, places, strict=False):
            if run.covered_by > passed:
                return place
        return places[-1]


def _state_of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns
