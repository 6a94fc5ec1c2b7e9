"""Search and follow the audit log: the records of all chains as one stream, oldest first.

Chains are merged by time; within a chain the order is the chain's own: a record that is older than one before
it (a clock was set back) comes behind that one. Of the same time, the chain that began first comes first. A
search by the index has the same order (`index/hits.py`). A chain is opened only when
the merge reaches its start time, which its id contains, so a folder with thousands of short chains (each
command writes one) does not need thousands of open files. Reading proves nothing: a line that does not
parse is skipped here and reported by `verify`. Given public keys, each record says whether a signed head
follows it (`proven.py`).
"""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.folder import chain_started, group_segments, node_of, verify_is_folder
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.proven import ProvenEnd, ProvenEnds
from gateway.audit.reading import opened, readable_lines, size_of
from gateway.audit.record import MAX_LINE_BYTES, DecisionRecord, QuestionRecord, SummaryRecord, parse_line
from gateway.audit.timeline import microseconds, parse_record_id, time_text
from gateway.model.errors import BadNameError, Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.record import Record

    Source = Path | Sequence[Path]
    """An audit folder, or a list of audit folders and segment files."""
    FindKeys = Callable[[Path], Mapping[str, Ed25519PublicKey]]
    """Finds the public keys that are trusted for a folder, by fingerprint."""

    class Selection(Protocol):
        """Selects records."""

        def matches(self, record: Record) -> bool:
            """Whether this record is selected."""


_IDS = ("id", "decision_id", "ask_id", "change_id")  # a record's own, and those of what it belongs to
POLL_SECONDS = 0.2  # the longest delay before a follower sees a new record


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One record as read from a segment; nothing about it is verified.

    `is_proven`: whether a signed head of its chain follows it; None when no keys were given.
    """

    record: Record
    line: bytes  # without the newline
    path: Path
    line_number: int
    is_proven: bool | None = None

    @property
    def file(self) -> str:
        """The name of its segment file."""
        return self.path.name


class Searched(msgspec.Struct, frozen=True):
    """What was searched: the number of chains, and their nodes."""

    chains: int
    nodes: tuple[str, ...]


class Query(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A filter for records: all given criteria must match. Times are seconds; `until` is exclusive."""

    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    model: str | None = None  # the requested id or the canonical one
    decision: str | None = None
    reason: str | None = None
    kind: str | None = None  # of the record: decision, outcome, change, ...
    record_id: str | None = None  # of the record itself, or of the decision or change that it belongs to
    since: float | None = None
    until: float | None = None

    def matches(self, record: Record) -> bool:
        """Whether a record matches all criteria."""
        resource = record.resource if isinstance(record, DecisionRecord | QuestionRecord) else None
        return (
            (self.tenant is None or self.tenant == getattr(record, "tenant", None))
            and (self.kind is None or self.kind == record.__struct_config__.tag)
            and (self.tenant_record in {None, getattr(record, "tenant_record", None)})
            and (self.key_id is None or self.key_id in _own(record, "key_id", "claimed_key_id"))
            and (
                self.model is None
                or (resource is not None and self.model in {resource.model, resource.requested})
            )
            and (self.decision is None or self.decision == getattr(record, "decision", None))
            and (self.reason is None or self.reason in _reasons(record))
            and (self.record_id is None or self.record_id in _own(record, *_IDS))
            and (self.since is None or record.time >= time_text(self.since))
            and (self.until is None or record.time < time_text(self.until))
        )


def read_events(
    source: Source,
    query: Selection | None = None,
    *,
    keys: FindKeys | None = None,
    sleep: Callable[[float], object] | None = None,
    is_from_end: bool = False,
) -> Iterator[Event]:
    """The records that match, oldest first. Raises `Unavailable` when a file cannot be read.

    With `sleep` it follows the log: it calls `sleep` between scans of the folder, picks up new segments
    and chains, and ends when `sleep` raises. `is_from_end` skips the records that exist already.
    """
    cursors: dict[tuple[Path, str], _Cursor] = {}
    ends: dict[Path, ProvenEnds] = {}
    query = query or Query()
    is_first = True
    while True:
        due: list[tuple[str, _Cursor]] = []
        for (folder, chain), segments in _chains(source).items():
            if keys is not None and folder not in ends:
                ends[folder] = ProvenEnds(folder, keys(folder))
            cursor = cursors.setdefault((folder, chain), _Cursor(chain, ends.get(folder)))
            cursor.begin(segments)
            if is_first and is_from_end:
                cursor.skip()
            due.append((time_text(chain_started(chain) or 0), cursor))
        is_first = False
        for event, cursor in _merged(sorted(due, key=lambda entry: entry[0])):
            if query.matches(event.record):
                yield cursor.marked(event)
        if sleep is None:
            return
        sleep(POLL_SECONDS)


def find_record(source: Source, record_id: str, *, keys: FindKeys | None = None) -> Event | None:
    """The record with this id, or None. Raises `BadNameError` when the text is not a record id."""
    try:
        parse_record_id(record_id)
    except ValueError as error:
        raise BadNameError(str(error)) from error
    needle = f'"id":"{record_id}"'.encode()
    for (folder, chain), segments in _chains(source).items():
        for number, path in segments:
            end = 0
            for line_number, line in readable_lines(path):
                end += len(line)
                # Searching bytes handles over a million lines a second; decoding JSON does not.
                if needle not in line or (event := _event(path, line_number, line, number, end)) is None:
                    continue
                if event.record.id == record_id:
                    cursor = _Cursor(chain, ProvenEnds(folder, keys(folder)) if keys else None)
                    cursor.begin(segments)
                    return cursor.marked(event)
    return None


def survey(source: Source) -> Searched:
    """Count the chains and list the nodes of a source."""
    chains = [chain for _, chain in _chains(source)]
    return Searched(len(chains), tuple(sorted({node_of(chain) for chain in chains})))


def _own(record: Record, *names: str) -> set[str | None]:
    return {getattr(record, name, None) for name in names}


def _reasons(record: Record) -> set[str] | dict[str, int]:
    if isinstance(record, SummaryRecord):
        return record.reasons
    return {record.reason} if isinstance(record, DecisionRecord | QuestionRecord) else set()


def _chains(source: Source) -> dict[tuple[Path, str], list[tuple[int, Path]]]:
    """The segments of each chain of each folder, in order of their numbers."""
    by_folder: dict[Path, list[Path]] = {}
    for path in [source] if isinstance(source, Path) else source:
        if path.is_file():
            by_folder.setdefault(path.parent, []).append(path)
        else:
            by_folder.setdefault(path, []).extend(_listing(path))
    return {
        (folder, chain): segments
        for folder, paths in by_folder.items()
        for chain, segments in group_segments(dict.fromkeys(paths)).items()
    }


def _listing(folder: Path) -> list[Path]:
    verify_is_folder(folder)
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise Unavailable(
            "audit",
            f"{folder} cannot be listed ({error.strerror}); check CACHEGATE_AUDIT_DIR",
            Reason.NO_AUDIT,
        ) from error


class _PlacedEvent(Event, frozen=True, kw_only=True):
    """An event with its position in its chain: segment number, and the offset at which its line ends."""

    place: ProvenEnd


def _event(path: Path, line_number: int, line: bytes, segment: int, end: int) -> _PlacedEvent | None:
    try:
        return _PlacedEvent(
            record=parse_line(line),
            line=line.rstrip(b"\n"),
            path=path,
            line_number=line_number,
            place=ProvenEnd(segment, end),
        )
    except ValueError:
        return None


class _Cursor:
    """The read position in one chain: all segments before `_number`, and `_offset` bytes of that one."""

    def __init__(self, chain: str, ends: ProvenEnds | None) -> None:
        self._chain = chain
        self._ends = ends
        self._segments: list[tuple[int, Path]] = []
        self._proven: ProvenEnd | None = None
        self._number = 0
        self._offset = 0
        self._line_number = 0

    def begin(self, segments: list[tuple[int, Path]]) -> None:
        """Start another pass over the chain with the segments that exist now."""
        self._segments = segments
        self._proven = None

    def skip(self) -> None:
        """Skip the records that exist already."""
        for _ in self.read_new():
            pass

    def marked(self, event: _PlacedEvent) -> Event:
        """The event with `is_proven` set, if keys were given."""
        is_proven = None
        if self._ends is not None:
            if self._proven is None:
                self._proven = self._ends.find(self._chain, self._segments)
            is_proven = event.place <= self._proven
        return Event(
            record=event.record,
            line=event.line,
            path=event.path,
            line_number=event.line_number,
            is_proven=is_proven,
        )

    def read_new(self) -> Iterator[_PlacedEvent]:
        """The records added since the last pass; an incomplete last line is left for the next pass."""
        for number, path in self._segments:
            if number < self._number:
                continue
            if number > self._number:
                self._number, self._offset, self._line_number = number, 0, 0
            try:
                if size_of(path) <= self._offset:
                    continue
                with opened(path, self._offset) as file:
                    while line := file.readline(MAX_LINE_BYTES):
                        if not line.endswith(b"\n"):
                            break
                        self._offset += len(line)
                        self._line_number += 1
                        event = _event(path, self._line_number, line, number, self._offset)
                        if event is not None:
                            yield event
            except (FileNotFoundError, DamagedSegmentError):
                continue  # removed meanwhile, or not what it is named; `verify` reports it
            except OSError as error:
                raise Unavailable(
                    "audit", f"{path} cannot be read ({error.strerror}); read as its owner", Reason.NO_AUDIT
                ) from error


def _merged(due: list[tuple[str, _Cursor]]) -> Iterator[tuple[_PlacedEvent, _Cursor]]:
    """The events of all cursors in order of time; `due` is sorted by the start time of the chain."""
    heap: list[tuple[str, int, _PlacedEvent, Iterator[_PlacedEvent]]] = []
    waiting = iter(enumerate(due))
    upcoming = next(waiting, None)
    while heap or upcoming is not None:
        while upcoming is not None and (not heap or upcoming[1][0] <= heap[0][0]):
            events = upcoming[1][1].read_new()
            _push(heap, upcoming[1][0], upcoming[0], events)
            upcoming = next(waiting, None)
        if heap:
            latest, rank, event, events = heapq.heappop(heap)
            yield event, due[rank][1]
            _push(heap, latest, rank, events)


def _push(
    heap: list[tuple[str, int, _PlacedEvent, Iterator[_PlacedEvent]]],
    latest: str,
    rank: int,
    events: Iterator[_PlacedEvent],
) -> None:
    event = next(events, None)
    if event is not None:
        time = event.record.time if microseconds(event.record.time) is not None else ""
        heapq.heappush(heap, (max(latest, time), rank, event, events))
