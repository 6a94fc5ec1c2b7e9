"""What happened to a tenant, in order: changes one by one, and its requests hour by hour.

An hour has one line for what was read and one for each reason of a refusal. What is new is told when it
comes: a key's first request, a network that none of its keys used before, a model that it had not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.audit.record import (
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    OutcomeRecord,
    RefusedChangeRecord,
    SummaryRecord,
)
from gateway.audit.usage.tally import network_of

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import Record

MAX_LINES: Final = 100_000
MAX_KNOWN: Final = 100_000
_HOUR: Final = len("2026-11-30T17")


class TimelineLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line. `until` is the last time that it is about."""

    time: str
    what: str  # change, refused-change, reads, refused, new-key, new-network, new-model
    text: str
    key_id: str | None = None
    until: str | None = None
    count: int = 0
    bytes: int = 0
    result: str | None = None
    record: str | None = None  # the id of its record


class TenantTimeline:
    """Collects the timeline of a tenant; of one record of that name if it is given."""

    def __init__(self, tenant: str, tenant_record: str | None = None) -> None:
        self._tenant = tenant
        self._tenant_record = tenant_record
        self._lines: list[TimelineLine] = []
        self._open: dict[tuple[str, ...], TimelineLine] = {}
        self._changes: dict[str, TimelineLine] = {}
        self._known: set[tuple[str, str]] = set()
        self.left_out = 0

    @property
    def lines(self) -> list[TimelineLine]:
        """The lines, the first one first."""
        return sorted(self._lines, key=lambda one: one.time)

    def take(self, record: Record) -> None:
        """Look at one record."""
        if isinstance(record, ChangeOutcomeRecord) and record.change_id in self._changes:
            self._changes.pop(record.change_id).result = record.result
            return
        if getattr(record, "tenant", None) != self._tenant:
            return
        if self._tenant_record not in {None, getattr(record, "tenant_record", None)}:
            return
        match record:
            case DecisionRecord():
                self._decided(record)
            case OutcomeRecord() if record.bytes:
                self._hourly(record.time, "reads", "answers", count=0).bytes += record.bytes
            case SummaryRecord():
                for reason, count in record.reasons.items():
                    text = f"{reason} from {record.source}"
                    self._hourly(record.time, "refused", text, record.claimed_key_id, count)
            case ChangeRecord():
                self._changes[record.id] = self._line(_of_change(record, "change"))
            case RefusedChangeRecord():
                self._line(_of_change(record, "refused-change"))

    def _decided(self, record: DecisionRecord) -> None:
        key_id = record.key_id or record.claimed_key_id
        if record.decision != "allow":
            self._hourly(record.time, "refused", record.reason, key_id, 1)
            return
        if key_id is not None:
            self._new(record, "new-key", key_id, "its first request")
        self._new(record, "new-network", network_of(record.request.client), "from a network that is new")
        resource = record.resource
        model = None if resource is None else resource.model or resource.requested
        if model is not None:
            self._new(record, "new-model", model, "a model that was not read before")
        self._hourly(record.time, "reads", "answers", count=1)

    def _new(self, record: DecisionRecord, what: str, name: str, text: str) -> None:
        known = (what, name)
        if known in self._known or len(self._known) >= MAX_KNOWN:
            return
        self._known.add(known)
        key_id = record.key_id or record.claimed_key_id
        self._line(
            TimelineLine(time=record.time, what=what, text=f"{name}: {text}", key_id=key_id, record=record.id)
        )

    def _hourly(
        self, time: str, what: str, text: str, key_id: str | None = None, count: int = 0
    ) -> TimelineLine:
        """The line of this hour, with so many more."""
        name = time[:_HOUR], what, text, key_id or ""
        line = self._open.get(name)
        if line is None:
            line = self._line(TimelineLine(time=time, what=what, text=text, key_id=key_id))
            if len(self._open) < MAX_LINES:
                self._open[name] = line
        line.count += count
        line.until = max(line.until or time, time)
        return line

    def _line(self, line: TimelineLine) -> TimelineLine:
        if len(self._lines) >= MAX_LINES:
            self.left_out += 1
        else:
            self._lines.append(line)
        return line


def _of_change(record: ChangeRecord | RefusedChangeRecord, what: str) -> TimelineLine:
    named = " ".join((record.action, *record.subject))
    return TimelineLine(
        time=record.time,
        what=what,
        text=f"{named} by {record.actor}",
        key_id=record.key_id,
        record=record.id,
        result=record.reason if isinstance(record, RefusedChangeRecord) else None,
    )
