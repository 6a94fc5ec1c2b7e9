"""Follow and search: the records of all chains as one stream, oldest first.

Chains are merged by time; within a chain the order is the chain's own. A chain is opened only when
the merge reaches its start, which its id tells, so a folder with thousands of short chains (each
command writes one) does not need thousands of open files. Reading proves nothing: a line that is no
record is skipped here, and `verify` is what names it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.audit.folder import chain_started, group_segments, verify_is_folder
from gateway.audit.record import DecisionRecord, SummaryRecord, parse_line
from gateway.audit.timeline import parse_record_id, time_text
from gateway.audit.witness import read_lines
from gateway.model.errors import BadNameError, Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.audit.record import Record

POLL_SECONDS = 0.2  # how late a follower may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record as it lies in a segment; nothing about it was verified."""

    record: Record
    line: bytes  # without the newline
    file: str
    line_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which records to show: those that match all that is given. Times are seconds; `until` is exclusive."""

    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None  # as it was asked for, or the canonical id
    decision: str | None = None
    reason: str | None = None
    record_id: str | None = None  # of the record itself, or of the one it is the outcome of
    since: float | None = None
    until: float | None = None

    def matches(self, record: Record) -> bool:
        """Whether a record is one of those asked for."""
        resource = record.resource if isinstance(record, DecisionRecord) else None
        return (
            (self.tenant is None or self.tenant == getattr(record, "tenant", None))
            and (self.key_id is None or self.key_id in _own(record, "key_id", "claimed_key_id"))
            and (
                self.model is None
                or (resource is not None and self.model in {resource.model, resource.requested})
            )
            and (self.decision is None or self.decision == getattr(record, "decision", None))
            and (self.reason is None or self.reason in _reasons(record))
            and (self.record_id is None or self.record_id in _own(record, "id", "decision_id", "change_id"))
            and (self.since is None or record.time >= time_text(self.since))
            and (self.until is None or record.time < time_text(self.until))
        )


def read_events(
    folder: Path,
    query: Query | None = None,
    *,
    sleep: Callable[[float], object] | None = None,
    is_from_end: bool = False,
) -> Iterator[Event]:
    """The records that match, oldest first. Raises `Unavailable` when a file cannot be read.

    With `sleep` it follows: it calls it between looks at the folder, picks up new segments and
    chains, and ends when `sleep` raises. `is_from_end` leaves out what is there already.
    """
    cursors: dict[str, _Cursor] = {}
    query = query or Query()
    is_first = True
    while True:
        due: list[tuple[str, _Cursor]] = []
        for chain, segments in group_segments(_listing(folder)).items():
            cursor = cursors.setdefault(chain, _Cursor())
            cursor.segments = segments
            if is_first and is_from_end:
                cursor.skip()
            due.append((time_text(chain_started(chain) or 0), cursor))
        is_first = False
        for event in _merged(sorted(due, key=lambda entry: entry[0])):
            if query.matches(event.record):
                yield event
        if sleep is None:
            return
        sleep(POLL_SECONDS)


def find_record(folder: Path, record_id: str) -> Event | None:
    """The record with this id. Raises `BadNameError` when it is no record id."""
    try:
        parse_record_id(record_id)
    except ValueError as error:
        raise BadNameError(str(error)) from error
    needle = f'"id":"{record_id}"'.encode()
    for segments in group_segments(_listing(folder)).values():
        for _, path in segments:
            for number, line in read_lines(path):
                # A search for bytes passes over a million lines a second; decoding does not.
                if needle in line and (event := _event(path, number, line)) and event.record.id == record_id:
                    return event
    return None


def _own(record: Record, *names: str) -> set[str | None]:
    return {getattr(record, name, None) for name in names}


def _reasons(record: Record) -> set[str] | dict[str, int]:
    if isinstance(record, SummaryRecord):
        return record.reasons
    return {record.reason} if isinstance(record, DecisionRecord) else set()


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


def _event(path: Path, number: int, line: bytes) -> Event | None:
    try:
        return Event(record=parse_line(line), line=line.rstrip(b"\n"), file=path.name, line_number=number)
    except ValueError:
        return None


class _Cursor:
    """How far one chain was read: all segments before `_number`, and `_offset` bytes of that one."""

    def __init__(self) -> None:
        self.segments: list[tuple[int, Path]] = []
        self._number = 0
        self._offset = 0
        self._line_number = 0

    def skip(self) -> None:
        """Leave out what is there."""
        for _ in self.read_new():
            pass

    def read_new(self) -> Iterator[Event]:
        """The records that were added since the last time; half a line waits for the next."""
        for number, path in self.segments:
            if number < self._number:
                continue
            if number > self._number:
                self._number, self._offset, self._line_number = number, 0, 0
            try:
                if path.stat().st_size <= self._offset:
                    continue
                with path.open("rb") as file:
                    file.seek(self._offset)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        self._offset += len(line)
                        self._line_number += 1
                        event = _event(path, self._line_number, line)
                        if event is not None:
                            yield event
            except FileNotFoundError:
                continue  # taken away meanwhile; `verify` says so
            except OSError as error:
                raise Unavailable(
                    "audit", f"{path} cannot be read ({error.strerror}); read as its owner", Reason.NO_AUDIT
                ) from error


def _merged(due: list[tuple[str, _Cursor]]) -> Iterator[Event]:
    """Events by time; `due` has cursors by the time their chain started."""
    heap: list[tuple[str, int, Event, Iterator[Event]]] = []
    waiting = iter(enumerate(due))
    upcoming = next(waiting, None)
    while heap or upcoming is not None:
        while upcoming is not None and (not heap or upcoming[1][0] <= heap[0][0]):
            events = upcoming[1][1].read_new()
            _push(heap, upcoming[0], events)
            upcoming = next(waiting, None)
        if heap:
            _, rank, event, events = heapq.heappop(heap)
            yield event
            _push(heap, rank, events)


def _push(heap: list[tuple[str, int, Event, Iterator[Event]]], rank: int, events: Iterator[Event]) -> None:
    event = next(events, None)
    if event is not None:
        heapq.heappush(heap, (event.record.time, rank, event, events))
