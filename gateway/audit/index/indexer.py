"""Put the records of a folder in one order, and follow what is written to it.

One process does it at a time: the caller holds the lock. It reads each segment once, whole lines only, and
appends to the order what it read. A chain's records come in the chain's own order.

The order is that of `heads.jsonl`, as far as that lists: first the records that its first line covers, then
those of the second, and so on; then what no head covers yet, as it is found. In a log that is followed from
its beginning nearly everything is found before its head is listed. An index that was lost and is made anew
has everything in the sequence of the heads, up to where that file ends. That is what a cursor of the order
before resumes by (`cursor.py`): it needs no clock, so that a clock that was set, a chain that is found late
or a worker that was stopped for an hour cannot hide a record from it.

What was made is used as long as it fits: a segment that is shorter than what was read of it, or that is
complete and was written to since, a part that is damaged or missing: then the whole index is made anew.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.audit.canonical import MAX_INTEGER
from gateway.audit.folder import (
    FOLDER_MODE,
    HEADS_NAME,
    LIVE_NAME,
    chain_started,
    group_segments,
    segment_name,
)
from gateway.audit.index.indexed_fields import parse_fields
from gateway.audit.index.journal import (
    COMPLETE_NAME,
    DAMAGED_NAME,
    INDEX_NAME,
    MAX_RUN_BYTES,
    PART_PLACES,
    UNCOVERED,
    VERSION,
    BeginEntry,
    ChainEntry,
    CompleteEntry,
    RunEntry,
    SourceEntry,
    framed,
    open_appending,
    order_path,
    part_path,
    write_file,
)
from gateway.audit.index.listed_heads import MOST_PENDING, ListedHeads
from gateway.audit.index.order import KnownOrder
from gateway.audit.index.part import DamagedIndexError, OpenPart
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import OpenedSegment, size_of
from gateway.audit.record import MAX_LINE_BYTES
from gateway.audit.segment import write_whole
from gateway.audit.timeline import microseconds, time_text

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.index.listed_heads import ListedHead

LOCK_NAME = "index.lock"
STEP_BYTES = 8 << 20  # of segments in one step, so that what calls can stop between
MOST_GONE = 1000  # segments that retention removed and that are still known as complete
_MOST_OPEN_SEGMENTS = 64
_LISTED_AGAIN = 8  # steps after a change: another one within a tick of the clock leaves no other time


class _Unfit(Exception):  # noqa: N818 -- no error: the index is made anew
    """The index does not fit the segments."""


class _FolderListing(NamedTuple):
    """A folder as it was listed."""

    changed: list[int]  # the times of the folders
    segments: dict[str, list[tuple[int, Path]]]
    live: frozenset[str]


class Indexer:
    """The index of one folder, extended. Its calls raise `OSError` when the disk does not take it."""

    def __init__(self, folder: Path, node: str, *, is_thorough: bool = False) -> None:
        """`is_thorough`: read all of what is there first, to see whether it is damaged."""
        self._is_thorough = is_thorough
        self._folder = folder
        self._damaged = str(folder / INDEX_NAME / DAMAGED_NAME)
        self._node = node
        self._look: _FolderListing | None = None
        self._marks: frozenset[str] | None = None  # who lived before the folder was listed, in this step
        self._list_again = 0
        self._watched: list[str] = []  # what can grow, of this listing
        self._watched_look: _FolderListing | None = None
        self._quiet: tuple[tuple[int, int] | None, ...] | None = None  # when a step found nothing
        self._files: dict[tuple[str, int], OpenedSegment] = {}
        self._known = KnownOrder(folder)
        self._journal = self._complete = -1
        self._chains: dict[str, ChainEntry] = {}
        self._chains_before: dict[str, ChainEntry] = {}  # at the beginning of the open part
        self._completed: dict[str, CompleteEntry] = {}
        self._sources: list[str] = []
        self._source_of: dict[str, int] = {}
        self._runs: list[RunEntry] = []
        self._resume()

    # Begin

    def _resume(self) -> None:
        (self._folder / INDEX_NAME).mkdir(mode=FOLDER_MODE, exist_ok=True)
        try:
            self._take_up()
        except (_Unfit, DamagedIndexError, DamagedSegmentError):
            self._begin_anew()

    def _take_up(self) -> None:
        """Go on with what is there, if it fits."""
        known = self._known
        known.refresh()
        begin = known.begin
        if begin is None or begin.node != self._node or known.is_damaged or self.is_reported():
            raise _Unfit
        if len(known.chains_before) != begin.chains:  # else what its parts hold would come again
            raise _Unfit
        for number in known.parts if self._is_thorough else ():
            known.part(number).verify()
        self._chains = known.chains
        self._chains_before = known.chains_before
        self._completed = known.complete()
        self._verify_fit()
        self._part = OpenPart()
        self._sources = [segment_name(*one) for one in known.sources]
        self._source_of = {name: at for at, name in enumerate(self._sources)}
        self._runs = known.runs
        self._begin = begin
        last = known.runs[-1] if known.runs else begin
        self._listed = (last.listed_bytes, last.listed_hash)
        self._covered_by = known.covered_by
        self._read_again()
        self._heads = ListedHeads(self._folder, self._listed[0])
        self._write_complete()  # without the part of an entry that a full disk or a kill left at its end
        self._open_files()
        self._begin = msgspec.structs.replace(begin, epochs=begin.next_epochs(known.end))
        self._begin_journal(begin.part, begin.first_part)
        if len(self._part) == PART_PLACES:  # killed between its file and the next journal
            self._end_part()

    def _read_again(self) -> None:
        """Fill the open part from the runs of the journal."""
        keys = {chain: state.key for chain, state in self._known.chains_before.items()}
        for run in self._runs:
            chain, number = self._known.sources[run.source]
            try:
                block = self._read(chain, number, run.start, run.end - run.start)
            except FileNotFoundError:  # removed by retention: nothing of it will ever be found
                for _ in range(run.count):
                    self._part.add(None, None, run.key, 0)
                continue
            lines = _split(block)
            if len(lines) != run.count or len(block) != run.end - run.start:
                raise _Unfit
            key, offset = keys.get(chain, 0), 0
            for line in lines:
                key = self._take(line, chain, key, offset)[0]
                offset += len(line) + 1
            keys[chain] = key

    def _begin_anew(self) -> None:
        """Make an empty order, and remove the one before."""
        self._close_files()
        folder = self._folder / INDEX_NAME
        order = os.urandom(8).hex()
        begin = BeginEntry(version=VERSION, order=order, node=self._node, epochs=((order, 0),))
        write_file(folder / COMPLETE_NAME, framed(begin))
        write_file(order_path(self._folder), framed(begin))
        for path in folder.iterdir():
            if path.suffix in {".part", ".partial"} or path.name == DAMAGED_NAME:
                path.unlink(missing_ok=True)
        self._begin = begin
        self._chains = {}
        self._chains_before = {}
        self._completed = {}
        self._part = OpenPart()
        self._sources = []
        self._source_of = {}
        self._runs = []
        self._listed = (0, "")
        self._covered_by = 0
        self._heads = ListedHeads(self._folder, 0)
        self._open_files()

    def _write_complete(self) -> None:
        """Write anew which segments are complete: those that are there."""
        there = {
            segment_name(chain, number)
            for chain, segments in self._list().segments.items()
            for number, _ in segments
        }
        self._completed = {name: entry for name, entry in self._completed.items() if name in there}
        entries = b"".join(map(framed, self._completed.values()))
        write_file(self._folder / INDEX_NAME / COMPLETE_NAME, framed(self._begin), entries)

    def _open_files(self) -> None:
        self._journal = open_appending(order_path(self._folder))
        self._complete = open_appending(self._folder / INDEX_NAME / COMPLETE_NAME)
        self._entries: list[bytes] = []
        self._completions: list[bytes] = []

    def _close_files(self) -> None:
        for descriptor in (self._journal, self._complete):
            if descriptor >= 0:
                os.close(descriptor)
        self._journal = self._complete = -1
        self._close_segments()
        self._known.close()

    def close(self) -> None:
        """Close the files."""
        self._close_files()

    def is_reported(self) -> bool:
        """Whether a reader found damage."""
        return os.path.lexists(self._damaged)

    def _verify_fit(self) -> None:
        """Raises `_Unfit` when a segment is not any more what was read, or a reader found damage."""
        if self.is_reported():
            raise _Unfit
        look = self._list(is_anew=True)
        for chain, segments in look.segments.items():
            state = self._chains.get(chain)
            for number, path in segments:
                complete = self._completed.get(segment_name(chain, number))
                if complete is not None and not _fits(path, complete):
                    raise _Unfit
                is_open = state is not None and number == state.number
                if complete is None and state is not None and is_open and _size(path) < state.offset:
                    raise _Unfit
                if complete is None and state is not None and number < state.number:
                    raise _Unfit  # it came back, or was never seen

    # Steps

    def tidy(self) -> None:
        """Now and then: whether the index still fits, and parts of which retention removed everything."""
        try:
            self._verify_fit()
            self._forget_removed()
        except (_Unfit, DamagedIndexError):
            self._begin_anew()

    def _forget_removed(self) -> None:
        known = self._known
        known.refresh()
        segments = sum(map(len, self._list().segments.values()))
        if len(self._completed) > 2 * segments + MOST_GONE:
            self._flush()
            self._write_complete()
            os.close(self._complete)
            self._complete = open_appending(self._folder / INDEX_NAME / COMPLETE_NAME)
        names = {path.name for one in self._list().segments.values() for _, path in one}
        first = self._begin.first_part
        while first < self._begin.part:
            part = known.part(first)
            part.load()
            sources = [segment_name(*one) for one in part.sources]
            if any(name in names or name + ".zst" in names for name in sources):
                break
            first += 1
        if first == self._begin.first_part:
            return
        gone = range(self._begin.first_part, first)
        self._begin_journal(self._begin.part, first)
        for number in gone:
            part_path(self._folder, self._begin.order, number).unlink(missing_ok=True)

    def step(self) -> int:
        """Put in order what is new; how many records that was. Nothing new is left when it returns 0."""
        state = self._watched_state()  # before anything is read: what changes meanwhile is found next time
        if state is not None and state == self._quiet:
            return 0
        self._quiet = None
        before = self._begin.part * PART_PLACES + len(self._part)
        order = self._begin.order
        try:
            self._extend()
            self._flush()
        except _Unfit:
            self._begin_anew()
        if order != self._begin.order:
            return 1
        found = self._begin.part * PART_PLACES + len(self._part) - before
        if not found and not self._heads.pending:
            self._quiet = state
        return found

    def _watched_state(self) -> tuple[tuple[int, int] | None, ...] | None:
        """The sizes and times of all that can grow: as long as they stay, an idle step costs some `stat`.

        None while the folder changed a moment ago: another change may leave the same time.
        """
        look = self._look
        if look is None or self._list_again:
            return None
        if look is not self._watched_look:
            growing = [
                segments[-1][1]
                for chain, segments in look.segments.items()
                if chain in look.live or self._has_more(chain, segments)
            ]
            folders = (self._folder, self._folder / LIVE_NAME, self._folder / HEADS_NAME)
            self._watched, self._watched_look = [str(path) for path in (*folders, *growing)], look
        return tuple(map(_changed_state, self._watched))

    def _extend(self) -> None:
        self._list_again -= self._list_again > 0
        again = self._list_again
        look = self._list(is_anew=again > 0)
        self._list_again = again or self._list_again
        self._left = STEP_BYTES
        is_all_listed = self._heads.refresh()
        self._marks = None
        passed: list[ListedHead] = []  # heads whose records are not there yet
        while self._heads.pending and self._left > 0:
            head = self._heads.pending.popleft()
            if self._is_covered(head):
                if not passed:
                    self._listed = (head.end, head.hash)
                continue
            passed.append(head)
        # So many heads of records that are not there hold up nobody: what no head covers is read too.
        is_caught_up = (is_all_listed and not self._heads.pending) or len(passed) >= MOST_PENDING
        self._heads.pending.extendleft(reversed(passed))
        if self._left <= 0 or not is_caught_up:
            return
        for chain, segments in look.segments.items():
            if chain in look.live or self._has_more(chain, segments):
                self._read_on(chain, segments, None, UNCOVERED)
                if self._left <= 0:
                    return

    def _is_covered(self, head: ListedHead) -> bool:
        """Put in order what a head covers; whether all of that is, or will never be there."""
        if self._reach(head):
            return True
        if self._left <= 0 or head.chain in self._marks_before():
            return False
        if self._reach(head):
            return True
        return self._left > 0 and not self._has_more(head.chain, self._list().segments.get(head.chain, []))

    def _reach(self, head: ListedHead) -> bool:
        state = self._chains.get(head.chain)
        if state is None or state.seq < head.seq:
            segments = self._list().segments.get(head.chain, [])
            self._read_on(head.chain, segments, head.seq, head.end)
            state = self._chains.get(head.chain)
        return state is not None and state.seq >= head.seq

    def _marks_before(self) -> frozenset[str]:
        """Which chains lived before the folder was listed, after this step's heads were read.

        A chain may grow as long as its process lives: so its mark is looked for before what it wrote. Once a
        step, and not for each head: `heads.jsonl` lists all chains that there ever were.
        """
        if self._marks is None:
            self._marks = self._list_marks()
            self._list(is_anew=True)
        return self._marks

    def _list_marks(self) -> frozenset[str]:
        with suppress(FileNotFoundError):  # a copy has none
            return frozenset(path.name.removeprefix(".") for path in (self._folder / LIVE_NAME).iterdir())
        return frozenset()

    def _list(self, *, is_anew: bool = False) -> _FolderListing:
        """The folder, listed again if it changed."""
        changed = [_changed_ns(self._folder), _changed_ns(self._folder / LIVE_NAME)]
        look = self._look
        if look is not None and look.changed == changed and not is_anew:
            return look
        # First the segments, then who lives: a process marks its chain before its first segment is there.
        found: dict[str, list[tuple[int, Path]]] = {}
        with suppress(FileNotFoundError):
            found = group_segments(self._folder.iterdir())
        marks = self._list_marks()
        ordered = sorted(found, key=lambda chain: (chain_started(chain) or 0.0, chain))
        look = self._look = _FolderListing(changed, {chain: found[chain] for chain in ordered}, marks)
        self._list_again = _LISTED_AGAIN
        return look

    def _has_more(self, chain: str, segments: list[tuple[int, Path]]) -> bool:
        """Whether a chain may have more than is in order. Only one that is complete has not."""
        number, _ = segments[-1] if segments else (0, None)
        state = self._chains.get(chain)
        if state is None or state.number < number:
            return bool(segments)
        return segment_name(chain, number) not in self._completed

    # Read

    def _read_on(
        self, chain: str, segments: list[tuple[int, Path]], until: int | None, covered_by: int
    ) -> None:
        """Put in order what a chain has, up to a number if one is given."""
        if not segments:
            return
        state = self._chains.setdefault(chain, ChainEntry(chain, key=_started(chain)))
        has_ended = chain not in self._list().live  # before it is read: then it is whole
        for at, (number, path) in enumerate(segments):
            if number < state.number:
                continue
            if number > state.number:
                state.number, state.offset = number, 0
            is_last = at + 1 == len(segments)
            try:
                is_read = self._read_segment(state, path, until, covered_by)
            except FileNotFoundError:
                self._look = None  # removed meanwhile
                continue
            except DamagedSegmentError:
                is_read = True  # `verify` reports it; what is behind the damage is not readable
            if not is_read:
                return
            if not is_last or has_ended:
                self._note_complete(chain, number, path, state)

    def _read_segment(self, state: ChainEntry, path: Path, until: int | None, covered_by: int) -> bool:
        """Put in order what a segment has; whether it was read to its end."""
        while self._left > 0:
            if until is not None and state.seq >= until:
                return False
            block = self._read(state.chain, state.number, state.offset, MAX_RUN_BYTES)
            end = block.rfind(b"\n") + 1
            if not end and len(block) == MAX_RUN_BYTES:
                block = self._read(state.chain, state.number, state.offset, MAX_LINE_BYTES)
                end = block.find(b"\n") + 1
            if not end:
                if not block and _size(path) < state.offset:
                    raise _Unfit  # it was cut
                return True
            self._left -= end
            self._add(state, _split(block[:end]), until, covered_by)
        return False

    def _add(self, state: ChainEntry, lines: list[bytes], until: int | None, covered_by: int) -> None:
        """Put lines in order: one run, or two where a part is full between them."""
        start, run_start, count = state.offset, state.offset, 0
        for line in lines:
            state.key, seq = self._take(line, state.chain, state.key, start - run_start)
            state.seq = seq or state.seq
            start += len(line) + 1
            count += 1
            is_full = len(self._part) == PART_PLACES
            is_enough = until is not None and state.seq >= until
            if is_full or is_enough:
                self._add_run(state, start, count, covered_by)
                run_start, count = start, 0
                if is_full:
                    self._end_part()
            if is_enough:
                return
        if count:
            self._add_run(state, start, count, covered_by)

    def _take(self, line: bytes, chain: str, key: int, offset: int) -> tuple[int, int]:
        """Note what a line can be found by; the latest time of its chain, and its number (0: none)."""
        key = key or _started(chain)
        try:
            fields = parse_fields(line)
        except ValueError:
            self._part.add(None, None, key, offset)
            return key, 0
        time = microseconds(fields.time)
        if time is not None and time > key:
            key = time
        self._part.add(fields, time, key, offset)
        return key, fields.seq if 0 <= fields.seq <= MAX_INTEGER else 0  # a forged one fits no journal

    def _add_run(self, state: ChainEntry, end: int, count: int, covered_by: int) -> None:
        name = segment_name(state.chain, state.number)
        source = self._source_of.get(name)
        if source is None:
            source = self._source_of[name] = len(self._sources)
            self._sources.append(name)
            self._entries.append(framed(SourceEntry(name)))
        run = RunEntry(source, state.offset, end, count, state.seq, state.key, covered_by, *self._listed)
        state.offset = end
        self._covered_by = max(self._covered_by, covered_by)
        self._runs.append(run)
        self._entries.append(framed(run))

    def _note_complete(self, chain: str, number: int, path: Path, state: ChainEntry) -> None:
        name = segment_name(chain, number)
        file = self._files.pop((chain, number), None)
        if file is not None:
            file.close()  # it may be packed or removed: an open file would hold its room on the disk
        if name in self._completed:
            return
        status = _status(path)
        if status is None:
            return
        # An incomplete line may be behind what is in order. It stays unread, as in every other reader.
        entry = CompleteEntry(name, state.offset, status.st_mtime_ns)
        self._completed[name] = entry
        self._completions.append(framed(entry))

    def _read(self, chain: str, number: int, offset: int, length: int) -> bytes:
        """Bytes of a segment. The files of segments stay open, as they are read piece by piece."""
        file = self._files.get((chain, number))
        if file is None:
            if len(self._files) >= _MOST_OPEN_SEGMENTS:
                self._close_segments()
            file = self._files[chain, number] = OpenedSegment(self._folder / segment_name(chain, number))
        return file.read(offset, length)

    def _close_segments(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}

    # Write

    def _flush(self) -> None:
        # First what is complete: what that says more than the journal does not count (`KnownOrder.complete`).
        completions, self._completions = self._completions, []
        if completions:
            write_whole(self._complete, b"".join(completions))
        entries, self._entries = self._entries, []
        if entries:
            write_whole(self._journal, b"".join(entries))

    def _end_part(self) -> None:
        self._flush()
        begin = self._begin
        path = part_path(self._folder, begin.order, begin.part)
        self._part.write(path, begin.order, begin.part, self._sources, self._runs, self._covered_by)
        self._part, self._sources, self._source_of, self._runs = OpenPart(), [], {}, []
        there = self._list().segments
        self._chains = {chain: state for chain, state in self._chains.items() if chain in there}
        self._chains_before = {chain: msgspec.structs.replace(one) for chain, one in self._chains.items()}
        self._begin_journal(begin.part + 1, begin.first_part)

    def _begin_journal(self, part: int, first_part: int) -> None:
        """Replace the journal by one that begins with what is known now."""
        self._flush()
        listed_bytes, listed_hash = self._listed
        self._begin = BeginEntry(
            version=VERSION,
            order=self._begin.order,
            node=self._node,
            part=part,
            first_part=first_part,
            covered_by=self._covered_by,
            listed_bytes=listed_bytes,
            listed_hash=listed_hash,
            epochs=self._begin.epochs,
            chains=len(self._chains_before),
        )
        pieces = [framed(self._begin), *map(framed, self._chains_before.values())]
        pieces += [framed(SourceEntry(name)) for name in self._sources]
        pieces += [framed(run) for run in self._runs]
        write_file(order_path(self._folder), b"".join(pieces))
        os.close(self._journal)
        self._journal = open_appending(order_path(self._folder))

    def behind(self) -> int:
        """How many bytes of segments are not in order yet."""
        bytes_behind = 0
        for chain, segments in self._list().segments.items():
            state = self._chains.get(chain)
            for number, path in segments:
                if state is None or number > state.number:
                    bytes_behind += _size(path)
                elif number == state.number and segment_name(chain, number) not in self._completed:
                    bytes_behind += max(0, _size(path) - state.offset)
        return bytes_behind


def _started(chain: str) -> int:
    return microseconds(time_text(chain_started(chain) or 0.0)) or 0


def _status(path: Path) -> os.stat_result | None:
    for one in (path, path.with_name(path.name + ".zst")):
        with suppress(OSError):
            return one.stat()
    return None


def _size(path: Path) -> int:
    """The length of a segment's content; 0 when it cannot be read."""
    try:
        return size_of(path)
    except (OSError, DamagedSegmentError):
        return 0


def _fits(path: Path, complete: CompleteEntry) -> bool:
    """Whether a segment was not written to since it was read."""
    status = _status(path)
    if status is None:
        return True  # removed meanwhile
    return status.st_mtime_ns == complete.written_ns


def _changed_state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 -- forty times a second
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _split(block: bytes) -> list[bytes]:
    """Whole lines, without what ends them."""
    return block.split(b"\n")[:-1]
