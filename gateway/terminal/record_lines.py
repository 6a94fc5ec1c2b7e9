"""Format an audit record as one line for people.

    2026-11-20T11:10:12.176704Z  <record id>  deny      acme  key_0123456789ab  read
        globex/cars/1  not-permitted  from 192.0.2.7  (not proven)

It is one line; its end says so when no signed head covers the record. The line itself proves nothing;
`cachegate audit verify` does. All recorded text passes `escape_controls`, since a client, or the person who
prepared a copy of a log, may have chosen it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

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
from gateway.terminal.escaping import escape_controls

if TYPE_CHECKING:
    from gateway.audit.record import Record, ResourcePart

COLOURS = {"allow": "green", "deny": "red", "change": "yellow", "summary": "red", "quarantine": "red"}
NOT_PROVEN = "(not proven)"
_KIND_WIDTH = 8


def record_line(record: Record, *, is_proven: bool = True) -> str:
    """The line, with terminal colours; `typer.echo` removes them for a pipe."""
    kind, words = _words(record)
    styled = typer.style(kind.ljust(_KIND_WIDTH), fg=COLOURS.get(kind))
    marks = [] if is_proven else [typer.style(NOT_PROVEN, fg="yellow")]
    shown = [escape_controls(word) for word in words if word]
    return "  ".join([escape_controls(record.time), escape_controls(record.id), styled, *shown, *marks])


def thing(resource: ResourcePart | None) -> str:
    """The names of what a record is about; an alias is shown with its model."""
    if resource is None:
        return ""
    model = resource.model or resource.requested
    if resource.requested is not None and resource.requested != model:
        model = f"{resource.requested} -> {model}"
    named = [one for one in (model, resource.package, resource.file) if one]
    if resource.md5:
        named.append(f"({resource.md5})" if named else resource.md5)
    return " ".join(named) or resource.kind


def _words(record: Record) -> tuple[str, list[str]]:  # noqa: C901, PLR0911, PLR0912 -- one return a kind of record
    match record:
        case DecisionRecord():
            return escape_controls(record.decision), [
                record.tenant or "-",
                record.key_id or record.claimed_key_id or "-",
                record.action or record.request.method,
                thing(record.resource) or record.request.route,
                record.reason,
                _size(record.size),
                f"from {record.request.client}",
            ]
        case QuestionRecord():
            subject = (
                "nobody known" if record.subject is None else f"{record.subject.kind} {record.subject.id}"
            )
            asked = f"may {subject} {record.asked or 'do what is unknown'}"
            who = [record.tenant or "-", record.key_id or "-"]
            told = [record.answer, record.reason, f"of {record.ask_id}"]
            return "question", [*who, asked, thing(record.resource) or "nothing known", *told]
        case OutcomeRecord():
            ending = f"{record.ending} {record.status}" + (f" {record.reason}" if record.reason else "")
            took = f"{record.elapsed_milliseconds:.1f} ms"
            who = [record.tenant or "-", record.key_id or "-"]
            return "outcome", [*who, ending, _size(record.bytes), took, f"of {record.decision_id}"]
        case ChangeRecord():
            who = [record.actor, record.tenant or "-", record.key_id or "-"]
            return "change", [*who, record.action, " ".join(record.subject)]
        case ChangeOutcomeRecord():
            got = "" if record.generation is None else f"generation {record.generation}"
            return "changed", [record.result, got, f"of {record.change_id}"]
        case SummaryRecord():
            reasons = " ".join(f"{reason}:{count}" for reason, count in record.reasons.items())
            who = [record.tenant or "-", record.claimed_key_id or "-"]
            return "summary", [*who, f"{record.count} refusals", reasons, f"from {record.source}"]
        case GapRecord():
            return "gap", [f"from {record.since} to {record.until}", f"{record.refused} refused", record.why]
        case RetentionRecord():
            count = f"{record.segments} segments ({record.why})"
            until = f"until {record.until}" if record.until else ""
            return "retention", [record.state, count, _size(record.bytes), until, " ".join(record.consumers)]
        case OpenRecord():
            return "open", [record.chain, record.reason]
        case GapRecord():
            return "gap", [f"{record.since} to {record.until}", f"{record.refused} refused", record.why]
        case RetentionRecord():
            counted = f"{record.segments} segments, {record.bytes} B"
            return "retention", [record.state, counted, record.why, " ".join(record.consumers)]
        case RefusedChangeRecord():
            who = [record.actor, record.tenant or "-", record.key_id or "-"]
            return "refused", [*who, record.action, " ".join(record.subject), record.reason]
        case WorkerRecord():
            return "worker", [record.worker, record.state, f"version {record.version}"]
        case ModeRecord():
            got = "" if record.generation is None else f"generation {record.generation}"
            return "mode", [record.worker, record.mode, got]
        case QuarantineRecord():
            pinned = f"pinned sha256:{record.pinned}" if record.pinned else ""
            return "quarantine", [record.md5, f"found sha256:{record.found}", pinned, f"by {record.source}"]
        case AnchorRecord():
            return "anchor", [record.authority, record.stamped_at, f"{record.listed_bytes} bytes of heads"]
        case ExportRecord():
            counted = "" if record.records is None else f"{record.records} records"
            return "export", [record.target, record.state, counted, record.reason or ""]
        case HeadRecord():
            return "head", [record.chain, record.state, f"signed by {record.signer}"]


def _size(size: int | None) -> str:
    return "" if size is None else f"{size} B"
