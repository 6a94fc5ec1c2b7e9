"""Search: the records of all chains that match, by time, read where the index says, and nothing else.

The order is that in which `read_events` merges chains: by time; a record that is older than one before it in
its chain comes behind that one; of the same time, the chain that began first. Both ways find the same:

- what is in order, by the names and ids of its part;
- what is not yet, by reading it: the newest records of each chain;
- a segment that is complete in the index and was written to since, by reading all of it.

Each record that is found is read from its segment and compared with the query. A part that is damaged raises
`DamagedIndexError`: then the caller reads the whole log.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from gateway.audit.folder import chain_started, group_segments, segment_name
from gateway.audit.index.indexed_fields import id_number, needles, wanted_names
from gateway.audit.index.journal import PART_PLACES
from gateway.audit.index.part import DamagedIndexError
from gateway.audit.packed import PACKED_SUFFIX, DamagedSegmentError
from gateway.audit.reading import OpenedSegment, readable_lines, size_of
from gateway.audit.record import MAX_LINE_BYTES, parse_line, parse_link
from gateway.audit.timeline import microseconds, time_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from gateway.audit.events import Query
    from gateway.audit.index.order import KnownOrder
    from gateway.audit.index.part import IndexPart
    from gateway.audit.record import Record

_BLOCK_BYTES = 1 << 20
_MOST_OPEN_SEGMENTS = 32


class Hit(NamedTuple):
    """Where a record stands that may match, in the order of a search."""

    key: int  # the latest time of its chain up to it
    started: float
    chain: str
    number: int
    start: int
    end: int
    place: int  # in the order of the index, in front of it; -1 when it is not in that yet


class FoundRecord(NamedTuple):
    """A record that matches."""

    hit: Hit
    line: bytes
    record: Record


class SegmentFiles:
    """Segments that are being read from, a few of them open at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[tuple[str, int], OpenedSegment] = {}

    def read(self, chain: str, number: int, offset: int, length: int) -> bytes:
        """Bytes of a segment; none when it is no more, or is damaged. Raises `OSError`."""
        try:
            file = self._open.get((chain, number))
            if file is None:
                if len(self._open) >= _MOST_OPEN_SEGMENTS:
                    self._open.pop(next(iter(self._open))).close()
                file = self._open[chain, number] = OpenedSegment(self._folder / segment_name(chain, number))
            return file.read(offset, length)
        except (FileNotFoundError, DamagedSegmentError):
            return b""

    def close(self) -> None:
        """Close all."""
        for file in self._open.values():
            file.close()
        self._open = {}


class Search:
    """One search of a folder, by the index as it was known at its beginning."""

    def __init__(self, folder: Path, known: KnownOrder, query: Query, *, is_newest_first: bool) -> None:
        self._folder = folder
        self._known = known
        self._query = query
        self._is_newest_first = is_newest_first
        self._files = SegmentFiles(folder)
        self._names = wanted_names(query)
        self._ids = [] if query.record_id is None else [id_number(query.record_id)]
        self._needles = needles(query)
        self._since = None if query.since is None else microseconds(time_text(query.since))
        self._until = None if query.until is None else microseconds(time_text(query.until))
        self._spoilt: set[tuple[str, int]] = set()  # segments that are read as a whole

    def run(self) -> Iterator[FoundRecord]:
        """The records that match, in order of time. Raises `DamagedIndexError` and `OSError`."""
        try:
            yield from self._run()
        finally:
            self._files.close()

    def _run(self) -> Iterator[FoundRecord]:
        waiting: list[FoundRecord | Hit] = [*self._unindexed(), *self._in_journal()]
        waiting.sort(key=_rank, reverse=self._is_newest_first)
        spans = self._spans()
        for at, (_, _, number) in enumerate(spans):
            hits = self._in_part(self._known.part(number))
            hits.sort(key=_rank, reverse=self._is_newest_first)
            waiting = list(heapq.merge(waiting, hits, key=_rank, reverse=self._is_newest_first))
            # What may come behind a record of the next part waits for that part.
            passed = len(waiting)
            if at + 1 < len(spans):
                first, last, _ = spans[at + 1]
                passed = bisect_left(waiting, True, key=lambda one: self._reaches(_rank(one)[0], first, last))
            yield from self._matching_of(waiting[:passed])
            del waiting[:passed]
        yield from self._matching_of(waiting)

    def _spans(self) -> list[tuple[int, int, int]]:
        """The parts that may hold a record of the time asked for, in order: first and last key, number."""
        spans = []
        for number in self._known.parts:
            header = self._known.header(number)
            if self._may_hold(header.first_time, header.last_time, is_odd=header.is_odd):
                spans.append((header.first_key, header.last_key, number))
        if self._is_newest_first:
            return sorted(spans, key=lambda span: -span[1])
        return sorted(spans)

    def _reaches(self, key: int, first: int, last: int) -> bool:
        """Whether a part with these keys may hold a record in front of one with this key."""
        return key <= last if self._is_newest_first else key >= first

    def _matching_of(self, found: list[FoundRecord | Hit]) -> Iterator[FoundRecord]:
        for one in found:
            record = self._read(one) if isinstance(one, Hit) else one
            if record is not None:
                yield record

    def _may_hold(self, first_time: int, last_time: int, *, is_odd: bool) -> bool:
        if is_odd:
            return True
        return (self._since is None or last_time >= self._since) and (
            self._until is None or first_time < self._until
        )

    # What is in parts

    def _in_part(self, part: IndexPart) -> list[Hit]:
        found = part.find(self._names, self._ids)
        if found == []:
            return []
        part.load()
        keys = part.column("keys")
        since = self._since
        if since is not None and not part.header.is_odd:
            # The latest time of a chain is never before that of the record itself.
            found = [one for one in (range(PART_PLACES) if found is None else found) if keys[one] >= since]
        offsets = part.column("offsets")
        hits = []
        for one in range(PART_PLACES) if found is None else found:
            at = part.locate(one)
            run = part.runs[at]
            chain, number = part.sources[run.source]
            if (chain, number) in self._spoilt:
                continue
            is_last = one + 1 == part.places[at + 1]
            start = run.start + offsets[one]
            end = run.end if is_last else run.start + offsets[one + 1]
            place = part.header.number * PART_PLACES + one
            hits.append(Hit(keys[one], chain_started(chain) or 0.0, chain, number, start, end, place))
        return hits

    def _read(self, hit: Hit) -> FoundRecord | None:
        """The record of a hit, if it matches. What the segment holds counts, not what the index says."""
        if not 0 < hit.end - hit.start <= MAX_LINE_BYTES:
            raise DamagedIndexError("a record has no length that a record can have")
        line = self._files.read(hit.chain, hit.number, hit.start, hit.end - hit.start)
        if not line:
            return None  # removed by retention
        if line.find(b"\n") != len(line) - 1:
            raise DamagedIndexError("a record is not where the index says")
        record = self._matching(line[:-1])
        return None if record is None else FoundRecord(hit, line[:-1], record)

    def _matching(self, line: bytes) -> Record | None:
        if b"\\" not in line:  # no character is written in two ways
            for needle in self._needles:
                if needle not in line:
                    return None
        try:
            record = parse_line(line)
        except ValueError:
            return None  # damaged: `verify` reports it
        return record if self._query.matches(record) else None

    # What is in the journal, or not in order yet

    def _in_journal(self) -> Iterator[FoundRecord]:
        known = self._known
        keys = {chain: state.key for chain, state in known.chains_before.items()}
        for run, place in zip(known.runs, known.places, strict=False):
            chain, number = known.sources[run.source]
            before = keys.get(chain, _started_key(chain))
            keys[chain] = run.key
            if (chain, number) in self._spoilt:
                continue
            block = self._files.read(chain, number, run.start, run.end - run.start)
            if block and (len(block) != run.end - run.start or not block.endswith(b"\n")):
                raise DamagedIndexError("a run is not where the index says")
            first = Hit(before, chain_started(chain) or 0.0, chain, number, run.start, 0, place)
            yield from self._in_lines(block.split(b"\n")[:-1], first)

    def _unindexed(self) -> Iterator[FoundRecord]:
        """Read what the index does not hold, or holds of a segment that was changed since."""
        known, complete = self._known, self._known.complete()
        for chain, segments in group_segments(self._folder.iterdir()).items():
            state = known.chains.get(chain)
            key = _started_key(chain)
            for number, path in segments:
                entry = complete.get(segment_name(chain, number))
                start = 0
                if entry is not None and _written_ns(path) in {entry.written_ns, None}:
                    key = max(key, 0 if state is None else state.key)
                    continue
                if entry is None and state is not None and number == state.number:
                    start = state.offset
                    with suppress(OSError, DamagedSegmentError):
                        size = size_of(path)
                        if size == start:
                            continue
                        if size < start:
                            start = 0
                    key = state.key if start else key
                if start == 0:
                    self._spoilt.add((chain, number))
                key = yield from self._in_rest(path, chain, number, start, key)

    def _in_rest(
        self, path: Path, chain: str, number: int, start: int, key: int
    ) -> Generator[FoundRecord, None, int]:
        """The records that match from an offset to the end; the latest time up to there."""
        started = chain_started(chain) or 0.0
        lines: list[bytes] = []
        size = 0
        for _, line in readable_lines(path, start):
            if not line.endswith(b"\n"):
                break
            lines.append(line[:-1])
            size += len(line)
            if size >= _BLOCK_BYTES:
                yield from self._in_lines(lines, Hit(key, started, chain, number, start, 0, -1))
                key, start, lines, size = _latest(key, lines), start + size, [], 0
        yield from self._in_lines(lines, Hit(key, started, chain, number, start, 0, -1))
        return _latest(key, lines)

    def _in_lines(self, lines: list[bytes], first: Hit) -> list[FoundRecord]:
        """The records that match among lines; the first of them begins where `first` does."""
        matching = [(at, record) for at, line in enumerate(lines) if (record := self._matching(line))]
        found: list[FoundRecord] = []
        start, key, done = first.start, first.key, 0
        for at, record in matching:
            start += sum(map(len, lines[done:at])) + at - done
            key = _latest(key, lines[done : at + 1])
            end = start + len(lines[at]) + 1
            place = first.place + at if first.place >= 0 else -1
            hit = Hit(key, first.started, first.chain, first.number, start, end, place)
            found.append(FoundRecord(hit, lines[at], record))
            start, done = end, at + 1
        return found


def _latest(key: int, lines: list[bytes]) -> int:
    """The latest time of records, and of those before them. A line without one of ours has none."""
    for line in lines:
        with suppress(ValueError):
            key = max(key, microseconds(parse_link(line).time) or 0)
    return key


def _rank(one: FoundRecord | Hit) -> tuple[int, float, str, int, int]:
    hit = one if isinstance(one, Hit) else one.hit
    return hit[:5]


def _started_key(chain: str) -> int:
    return microseconds(time_text(chain_started(chain) or 0.0)) or 0


def _written_ns(path: Path) -> int | None:
    for one in (path, path.with_name(path.name.removesuffix(PACKED_SUFFIX) + PACKED_SUFFIX)):
        with suppress(OSError):
            return one.stat().st_mtime_ns
    return None
