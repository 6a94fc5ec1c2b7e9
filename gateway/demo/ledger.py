"""Check that the audit log agrees with what the client received: every answer, and nothing else.

An allow must be recorded with what was sent, a refusal with a reason that has the received status. Statuses
come from the one table of problems, not from here. `verify` proves the log.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.events import read_events
from gateway.audit.record import DecisionRecord, OutcomeRecord
from gateway.demo.tour import shown_path
from gateway.problems import PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.demo.tour import Visit

PATIENCE_SECONDS = 3.0  # an outcome is recorded after the last byte, which the client may see first
_POLL_SECONDS = 0.05
_STATUSES = {reason.value: problem.status for reason, problem in PROBLEMS.items()}


class LoggedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the log holds about one answer."""

    decision: DecisionRecord
    outcome: OutcomeRecord | None

    @property
    def is_complete(self) -> bool:
        """Whether no further record is expected."""
        return self.decision.decision != "allow" or self.outcome is not None


def load_ledger(folder: Path, record_ids: Sequence[str]) -> dict[str, LoggedAnswer]:
    """The entries of these records, after waiting a little for outcomes that are being written."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        entries = _entries(folder, frozenset(record_ids))
        is_complete = len(entries) == len(set(record_ids)) and all(
            one.is_complete for one in entries.values()
        )
        if is_complete or time.monotonic() > deadline:
            return entries
        time.sleep(_POLL_SECONDS)


def check_ledger(visits: Sequence[Visit], ledger: Mapping[str, LoggedAnswer]) -> list[str]:
    """Every point in which the log disagrees with what the client received."""
    complaints = [
        complaint for visit in visits for complaint in _disagreements(visit, ledger.get(visit.record_id))
    ]
    if len({visit.record_id for visit in visits}) != len(visits):
        complaints.append("two answers name one audit record")
    return complaints


def _disagreements(visit: Visit, entry: LoggedAnswer | None) -> list[str]:
    request = f"{visit.step.who}: {visit.step.method} {shown_path(visit.step)}"
    if entry is None:
        return [f"{request}: the audit log has no record {visit.record_id or '(none was named)'}"]
    recorded = _recorded_status(entry)
    if recorded != visit.answer.status:
        return [f"{request}: the client got {visit.answer.status}, the audit log says {recorded}"]
    if entry.outcome is not None and entry.outcome.bytes != len(visit.answer.body):
        sent = entry.outcome.bytes
        return [f"{request}: the client got {len(visit.answer.body)} bytes, the audit log says {sent}"]
    return []


def _recorded_status(entry: LoggedAnswer) -> int | None:
    """The status that the client must have received, according to the record alone."""
    if entry.decision.decision == "allow":
        return None if entry.outcome is None else entry.outcome.status
    return _STATUSES.get(entry.decision.reason)


def _entries(folder: Path, wanted: frozenset[str]) -> dict[str, LoggedAnswer]:
    decisions: dict[str, DecisionRecord] = {}
    outcomes: dict[str, OutcomeRecord] = {}
    for event in read_events(folder):
        record = event.record
        if isinstance(record, DecisionRecord) and record.id in wanted:
            decisions[record.id] = record
        elif isinstance(record, OutcomeRecord) and record.decision_id in wanted:
            outcomes[record.decision_id] = record
    return {
        record_id: LoggedAnswer(decision=decision, outcome=outcomes.get(record_id))
        for record_id, decision in decisions.items()
    }
