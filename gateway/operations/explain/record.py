"""Describe a record of the audit log: what was asked, what was decided, and how it ended.

For a decision the question can be asked again, as far as the record holds it. A refused digest names no
model, and which model was meant cannot be known; the output says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.folder import group_segments, parse_segment_name
from gateway.audit.reading import readable_lines
from gateway.audit.record import DecisionRecord, OutcomeRecord, parse_line
from gateway.audit.record_fields import BINDING, LINK, TOKEN
from gateway.model.access import Action, ResourceKind
from gateway.model.errors import BadNameError, Reason
from gateway.model.names import (
    parse_file_handle,
    parse_model_id,
    parse_package_id,
)
from gateway.operations.explain.answer import AccessQuestion, parse_caller_id
from gateway.terminal.escaping import escape_controls
from gateway.terminal.record_lines import thing

if TYPE_CHECKING:
    from gateway.audit.events import Event

_MEANINGS = {reason.value: reason.explanation for reason in Reason}
_UNKNOWN = "a reason that this release does not know"
_PROVEN = {
    True: "yes: a signed head stands behind it",
    False: "no: no signed head stands behind it",
    None: "not checked: there is no public key",
}


def find_outcome(event: Event) -> OutcomeRecord | None:
    """The outcome of a recorded decision: it is later in the same chain."""
    parsed = parse_segment_name(event.file)
    if parsed is None:
        return None
    chain, first = parsed
    needle = f'"decision_id":"{event.record.id}"'.encode()
    for number, path in group_segments(event.path.parent.iterdir()).get(chain, []):
        if number < first:
            continue
        for _, line in readable_lines(path):
            if needle in line:
                outcome = _find_outcome_in(line, event.record.id)
                if outcome is not None:
                    return outcome
    return None


def question_again(record: DecisionRecord) -> AccessQuestion:
    """The question that was decided. Raises `BadNameError` when the record does not hold it."""
    key_id = record.key_id or record.claimed_key_id
    resource = record.resource
    if key_id is None:
        raise BadNameError("no valid key came with it")
    model = None if resource is None else resource.requested or resource.model
    is_of_tenant = resource is not None and resource.kind == ResourceKind.TENANT
    if resource is None or (model is None and not is_of_tenant) or record.action not in tuple(Action):
        raise BadNameError("it names no model, or no action")
    return AccessQuestion(
        key_id=parse_caller_id(key_id),
        model=None if model is None else parse_model_id(model),
        package=None if resource.package is None else parse_package_id(resource.package),
        file=None if resource.file is None else parse_file_handle(resource.file),
        action=Action(record.action),
        address=record.request.client,
    )


def plain_record(event: Event) -> dict[str, Any]:
    """The record as it was written, its place, and whether a signed head covers it."""
    document: dict[str, Any] = msgspec.json.decode(event.line)
    return {**document, "file": event.file, "line": event.line_number, "proven": event.is_proven}


def record_rows(event: Event, outcome: OutcomeRecord | None) -> list[tuple[str, str]]:
    """The rows of the table for people."""
    record = event.record
    rows = [
        ("time", record.time),
        ("where", f"{event.file}, line {event.line_number}"),
        ("proven", _PROVEN[event.is_proven]),
    ]
    if not isinstance(record, DecisionRecord):
        line = escape_controls(msgspec.json.encode(record).decode())
        return [*rows, ("kind", type(record).__name__.removesuffix("Record").lower()), ("record", line)]
    request = record.request
    policies = " ".join(record.policies) or "none"
    rows += [
        ("who", f"tenant {record.tenant or '-'}, key {_key(record)}"),
        ("asked", f"{request.method} {request.route} from {request.client}"),
        ("what", f"{record.action or '-'} of {thing(record.resource) or 'nothing that could be read'}"),
        ("decision", record.decision),
        ("reason", f"{record.reason}: {_MEANINGS.get(record.reason, _UNKNOWN)}"),
        ("grant", record.grant or "-"),
        ("policies", policies),
        ("generation", "-" if record.generation is None else str(record.generation)),
    ]
    if outcome is not None:
        sent = f"{outcome.bytes} bytes in {outcome.elapsed_milliseconds:.1f} ms"
        rows.append(("outcome", f"{outcome.ending}, status {outcome.status}, {sent}"))
        rows += _forwarded(outcome)
    elif record.decision == "allow":
        rows.append(("outcome", "not recorded: still under way, or its process ended first"))
    return [(name, escape_controls(text)) for name, text in rows]


def _forwarded(outcome: OutcomeRecord) -> list[tuple[str, str]]:
    """What only the outcome of a request to an inference server has."""
    rows = []
    if outcome.reason is not None:
        rows.append(("refused", f"{outcome.reason}: {_MEANINGS.get(outcome.reason, _UNKNOWN)}"))
    if outcome.upstream is not None:
        upstream = outcome.upstream
        took = f"{upstream.bytes} bytes in {upstream.elapsed_milliseconds:.1f} ms"
        rows.append(("server", f"{upstream.server}, status {upstream.status or 'none'}, {took}"))
    return rows


def _find_outcome_in(line: bytes, decision_id: str) -> OutcomeRecord | None:
    try:
        record = parse_line(line)
    except ValueError:
        return None
    return record if isinstance(record, OutcomeRecord) and record.decision_id == decision_id else None


def _key(record: DecisionRecord) -> str:
    if record.key_id is None and record.claimed_key_id is not None:
        return f"{record.claimed_key_id} (not valid then)"
    if record.principal == LINK:
        return f"{record.key_id} (by a signed link)"
    if record.principal == BINDING:
        return f"{record.key_id} (a binding: by a token of an outside issuer)"
    if record.principal == TOKEN:
        named = "" if record.token_id is None else f", {record.token_id}"
        return f"{record.key_id} (by an access token{named})"
    return record.key_id or "-"
