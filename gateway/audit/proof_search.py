"""Find a record by its id, and make the proof of it.

The id says when it was made (UUIDv7), so of each chain only the part of that time is searched, and of all
chains no more than `MOST_SEARCHED`. They are searched in blocks, which costs little of the interpreter's
time; so a thread that does it hardly slows down the event loop. What surrounds a record is then read line by
line, back to the head before it and forward to the head behind it: some thousand records at most.

A record may have been written some seconds after its id was made, and a clock may have been set back; beyond
what is allowed for that, only a search without bounds finds it, which is for commands.
"""

from __future__ import annotations

import math
import os
import sys
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gateway.audit.canonical import parse_document
from gateway.audit.folder import HEADS_NAME, chain_started, group_segments
from gateway.audit.heads_file import parse_listed
from gateway.audit.key_changes import KEY_CHANGES_NAME, load_changes
from gateway.audit.last_head import MOST_LINES
from gateway.audit.merkle import path_of, root_of
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.promise import PROMISED_SECONDS
from gateway.audit.proof import proof_file
from gateway.audit.reading import lines_backward, opened, readable_lines
from gateway.audit.record import (
    FIRST_WITH_TREES,
    MAX_LINE_BYTES,
    HeadRecord,
    Record,
    find_digest,
    parse_line,
    parse_link,
)
from gateway.audit.timeline import parse_record_id, time_text
from gateway.model.errors import Misconfigured, Reason, Unavailable

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NEAR = (0.1, 0.5)  # seconds before and after the time of its id in which nearly every record is written
FAR = (5.0, 15.0)  # beyond them: a clock may have been set back, and a summary may have waited
MOST_SEARCHED = 64 << 20  # bytes that a bounded search reads: less than a tenth of a second
_BLOCK_BYTES = 256 << 10
_MOST_SEARCHED_BYTES = 64 << 20  # of heads.jsonl, for a head by which a chain was given up
_HEAD_MARK = b'"kind":"head"'
_ABANDONED = b'"state":"abandoned"'


class Unproven(msgspec.Struct, frozen=True, kw_only=True):
    """The record is there, and has no proof. `again_in_seconds` when it will have one."""

    why: str
    again_in_seconds: int | None = None


class _Span(msgspec.Struct, frozen=True):
    """From when until when a record may have been written."""

    began: float
    first: str
    last: str

    @classmethod
    def around(cls, when: float, back: float, late: float) -> _Span:
        """Around the time of an id."""
        return cls(when - back, time_text(when - back), time_text(when + late))


@dataclass(slots=True)
class _Budget:
    """How many bytes a bounded search may still read."""

    left: int = MOST_SEARCHED


class _Found(NamedTuple):
    """A record, and where its line begins."""

    record: Record
    line: bytes
    chain: str
    segments: list[tuple[int, Path]]
    place: int  # in `segments`
    start: int


def prove(
    folder: Path,
    record_id: str,
    *,
    now: float,
    may_show: Callable[[Record], bool] = lambda _: True,
    is_bounded: bool = True,
) -> bytes | Unproven | None:
    """The proof of the record with this id; None when there is none that may be shown.

    A record that may not be shown is passed over as if it were not there: the search goes on to its end.
    Raises `ValueError` when the text is no record id, `Unavailable` when a file cannot be read, and
    `Misconfigured` when the log is damaged where the record is.
    """
    found = _find(folder, record_id, may_show, parse_record_id(record_id) if is_bounded else None)
    if found is None:
        return None
    if found.record.schema < FIRST_WITH_TREES:
        return Unproven(why="a release wrote it whose heads have no Merkle root: verify the whole log")
    try:
        values = parse_document(found.line)
    except ValueError as error:
        raise _damaged(found) from error
    changes = _changes(folder)
    if isinstance(found.record, HeadRecord):
        return proof_file(values, (), values, changes)
    before, after, head_line = _surroundings(found)
    head_line = head_line or _find_abandoned(folder, found.chain)
    if head_line is None:
        return _unproven(found.record, now)
    head = parse_line(head_line)
    if not isinstance(head, HeadRecord):
        raise _damaged(found)
    size = head.tree_size
    if size is None:
        raise _damaged(found)
    lines = [*before, found.line, *after]
    lines = lines[len(lines) - size :] if size <= len(lines) else []
    hashes = [digest for line in lines if (digest := find_digest(line)) is not None]
    index = found.record.seq - (head.seq - size)
    if len(hashes) != size or not 0 <= index < size or root_of(hashes).hex() != head.tree_root:
        raise _damaged(found)
    return proof_file(values, path_of(hashes, index), parse_document(head_line), changes)


def _find(
    folder: Path, record_id: str, may_show: Callable[[Record], bool], when: float | None
) -> _Found | None:
    """The record: looked for where one of its time stands, then in all that its segments hold."""
    chains = _chains(folder, when)
    if when is None:
        return _find_in(chains, record_id, may_show, [None])
    return _find_in(chains, record_id, may_show, [_Span.around(when, *NEAR), _Span.around(when, *FAR)])


def _find_in(
    chains: list[tuple[str, list[tuple[int, Path]]]],
    record_id: str,
    may_show: Callable[[Record], bool],
    spans: Sequence[_Span | None],
) -> _Found | None:
    needle = b'"id":"%b"' % record_id.encode()
    budget = _Budget()
    for span in spans:
        for chain, segments in chains:
            for place in _places(segments, span):
                path = segments[place][1]
                for start in _offsets(path, needle, span, budget):
                    line = next(_lines(path, start), b"")
                    try:
                        record = parse_line(line)
                    except ValueError:
                        continue  # being written, or damaged: `verify` reports it
                    if record.id == record_id and record.chain == chain and may_show(record):
                        return _Found(record, line, chain, segments, place, start)
    return None


def _chains(folder: Path, when: float | None) -> list[tuple[str, list[tuple[int, Path]]]]:
    """The chains that had begun by then, the newest first."""
    try:
        chains = group_segments(folder.iterdir())
    except OSError as error:
        raise Unavailable(
            "audit", f"{folder} cannot be listed ({error.strerror})", Reason.NO_AUDIT
        ) from error
    begun = [
        (started, chain)
        for chain in chains
        if (started := chain_started(chain) or 0.0) <= (when if when is not None else started) + FAR[1]
    ]
    return [(chain, chains[chain]) for _, chain in sorted(begun, reverse=True)]


def _places(segments: list[tuple[int, Path]], span: _Span | None) -> range:
    """The segments of a chain that may have a record of this time."""
    if span is None:
        return range(len(segments))
    with suppress(OSError):  # packed or removed meanwhile: reading it tells which
        if segments[-1][1].stat().st_mtime < span.began:
            return range(0)
    first = bisect_right(segments, span.first, key=lambda one: _first_time(one[1]))
    last = bisect_right(segments, span.last, key=lambda one: _first_time(one[1]))
    return range(max(0, first - 1), last)


def _first_time(path: Path) -> str:
    """The time of the first record of a segment; of an empty or damaged one a time that is searched."""
    for line in _lines(path):
        try:
            return parse_link(line).time
        except ValueError:
            break
    return ""


def _offsets(path: Path, needle: bytes, span: _Span | None, budget: _Budget) -> Iterator[int]:
    """Where the lines begin that contain these bytes; with a span, only those of its time."""
    try:
        with opened(path) as file:
            base, end = _bounds(file, span)
            rest = b""
            while base < end and (block := file.read(_BLOCK_BYTES)):
                budget.left -= len(block)
                if budget.left < 0 and span is not None:
                    return
                rest += block
                at = rest.find(needle)
                while at >= 0:
                    yield base + rest.rfind(b"\n", 0, at) + 1
                    at = rest.find(needle, at + 1)
                keep = rest.rfind(b"\n") + 1  # the last line goes on in the next block
                base, rest = base + keep, rest[keep:]
    except (FileNotFoundError, DamagedSegmentError):
        return  # removed meanwhile, or not what it is named; `verify` reports it
    except OSError as error:
        raise Unavailable(
            "audit", f"{path} cannot be read ({error.strerror}); read as its owner", Reason.NO_AUDIT
        ) from error


def _bounds(file: io.BufferedReader, span: _Span | None) -> tuple[int, int]:
    """From where to where a segment is searched. The file is at the beginning of that.

    One that was packed as one frame can only be read from its beginning to its end.
    """
    if not file.seekable():
        return 0, sys.maxsize
    base = 0 if span is None else _offset_of(file, span.first)
    end = file.seek(0, os.SEEK_END) if span is None else _offset_of(file, span.last) + MAX_LINE_BYTES
    return file.seek(base), end


def _offset_of(file: io.BufferedReader, time: str) -> int:
    """The beginning of a line in front of which every record is older than this time.

    That is so as long as times ascend. Where a clock was set back they do not: then all of it is searched.
    """
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        start = middle + len(file.readline(MAX_LINE_BYTES))
        try:
            is_older = parse_link(file.readline(MAX_LINE_BYTES)).time < time
        except ValueError:
            return low  # the last line, or a damaged one
        if is_older:
            low = start
        else:
            high = middle
    return low


def _surroundings(found: _Found) -> tuple[list[bytes], list[bytes], bytes | None]:
    """The records around this one, from the head before it to the head behind it, and that head."""
    before: list[bytes] = []
    for line in _backward(found):
        if _HEAD_MARK in line or len(before) >= MOST_LINES:
            break
        before.append(line)
    before.reverse()
    after: list[bytes] = []
    for line in _forward(found):
        if _HEAD_MARK in line:
            return before, after, line
        if len(after) >= MOST_LINES or not line.endswith(b"\n"):
            break
        after.append(line)
    return before, after, None


def _lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines of a segment, as far as it can be read. One that retention has removed has none."""
    try:
        for _, line in readable_lines(path, start):
            yield line
    except Unavailable as failure:
        if not isinstance(failure.__cause__, FileNotFoundError):
            raise


def _backward(found: _Found) -> Iterator[bytes]:
    end: int | None = found.start
    for _, path in reversed(found.segments[: found.place + 1]):
        for _, line in lines_backward(path, end):
            yield line
        end = None


def _forward(found: _Found) -> Iterator[bytes]:
    start = found.start + len(found.line)
    for _, path in found.segments[found.place :]:
        yield from _lines(path, start)
        start = 0


def _find_abandoned(folder: Path, chain: str) -> bytes | None:
    """The head by which the process of a chain gave it up, which is in `heads.jsonl` only."""
    left, name = _MOST_SEARCHED_BYTES, chain.encode()
    for _, line in lines_backward(folder / HEADS_NAME):
        left -= len(line)
        if left < 0:
            return None
        if _ABANDONED in line and name in line:
            try:
                head_line = bytes(parse_listed(line).head) + b"\n"
                head = parse_line(head_line)
            except ValueError:
                continue
            if isinstance(head, HeadRecord) and head.chain == chain and head.state == "abandoned":
                return head_line
    return None


def _unproven(record: Record, now: float) -> Unproven:
    """Of a record without a head behind it: its process will sign one in time, or was killed."""
    try:
        due_in = datetime.fromisoformat(record.time).timestamp() + PROMISED_SECONDS - now
    except (ValueError, OverflowError):
        due_in = -PROMISED_SECONDS
    if due_in <= -PROMISED_SECONDS:  # a busy worker may be a little late
        return Unproven(why="no signed head follows it: its process was killed, and it stays unproven")
    return Unproven(
        why="no signed head follows it yet: one comes within 10 seconds",
        again_in_seconds=min(max(1, math.ceil(due_in)), int(PROMISED_SECONDS)),
    )


def _changes(folder: Path) -> list[dict[str, Any]]:
    try:
        return load_changes(folder / KEY_CHANGES_NAME)
    except (OSError, ValueError) as error:
        raise Misconfigured(str(folder / KEY_CHANGES_NAME), f"cannot be read: {error}") from error


def _damaged(found: _Found) -> Misconfigured:
    path = found.segments[found.place][1]
    return Misconfigured(str(path), "is damaged around this record; run `cachegate audit verify`")
