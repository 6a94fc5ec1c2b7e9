"""One audit record becomes one OCSF event; each kind has its function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.audit.ocsf import changes, requests, upkeep
from gateway.audit.record import (
    AnchorRecord,
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    ExportRecord,
    GapRecord,
    HeadRecord,
    ModeRecord,
    OpenRecord,
    OutcomeRecord,
    QuarantineRecord,
    QuestionRecord,
    RefusedChangeRecord,
    RetentionRecord,
    SummaryRecord,
    WorkerRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.audit.record import Record

_KINDS: dict[type, Callable[[Any, bytes | None], dict[str, Any]]] = {
    DecisionRecord: requests.of_decision,
    QuestionRecord: requests.of_question,
    OutcomeRecord: requests.of_outcome,
    SummaryRecord: requests.of_summary,
    ChangeRecord: changes.of_change,
    ChangeOutcomeRecord: changes.of_change_outcome,
    RefusedChangeRecord: changes.of_refused_change,
    GapRecord: upkeep.of_gap,
    RetentionRecord: upkeep.of_retention,
    OpenRecord: upkeep.of_open,
    WorkerRecord: upkeep.of_worker,
    ModeRecord: upkeep.of_mode,
    QuarantineRecord: upkeep.of_quarantine,
    AnchorRecord: upkeep.of_anchor,
    ExportRecord: upkeep.of_export,
    HeadRecord: upkeep.of_head,
}


def to_ocsf(record: Record, line: bytes | None = None) -> dict[str, Any]:
    """The event of a record.

    `line` is the record as it was written. Only records of version 1 need it, whose bytes cannot be made
    anew: without it, their events have no `raw_data` and prove nothing.
    """
    return _KINDS[type(record)](record, line)
