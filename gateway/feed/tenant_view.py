"""What a tenant sees of a record of its own: a closed list of fields, made anew, never the record itself.

A record holds what its tenant may not know: the rules that decided, the model behind an alias, the reason why
something is hidden, the generation of the facts, and the positions of its chain, which count everybody's
requests. So a view says what the tenant was told, and when: for a refusal the status and the kind of its
problem, which are the same for a rule's refusal, for what is not there and for what is somebody else's. What
a record gets in a later version is not shown until it is listed here.

The records of a tenant are those that name its own record (`tenant_record`), not only its name: a tenant of
the same name that is gone had other ones. A change that was refused names no record, so nobody sees it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.record import (
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    OutcomeRecord,
    QuestionRecord,
    SummaryRecord,
)
from gateway.model.errors import Reason
from gateway.problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.audit.record import Record, ResourcePart
    from gateway.model.names import TenantId
    from gateway.model.tenant_records import TenantRecordId
    from gateway.problems import Problem

VIEW_VERSION = 1
ALLOW, YES = "allow", "yes"


class ViewedResource(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What was asked for. `model` and what follows it are of allowed requests only."""

    kind: str
    requested: str | None = None  # the model, as the client named it
    model: str | None = None
    package: str | None = None
    file: str | None = None
    md5: str | None = None
    sha256: str | None = None


class ViewedRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The request that a decision was about."""

    method: str
    route: str
    client: str
    agent: str | None = None
    trace_id: str | None = None


class ViewedSubject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a question was about, as it was asked."""

    kind: str
    id: str


class ViewedRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One record as its tenant sees it. Fields that a kind of record does not have are absent."""

    view: int = msgspec.field(name="schema")
    id: str
    kind: str
    time: str
    key_id: str | None = None
    claimed_key_id: str | None = None  # a key of this tenant that is not valid
    principal: str | None = None
    action: str | None = None
    decision: str | None = None
    status: int | None = None  # that the client was told; of an outcome, that was sent
    problem: str | None = None  # the last part of the type of the problem that the client was told
    resource: ViewedResource | None = None
    size: int | None = None
    request: ViewedRequest | None = None
    decision_id: str | None = None
    ending: str | None = None
    bytes: int | None = None
    microseconds: int | None = None
    sha256: str | None = None
    ask_id: str | None = None
    item: int | None = None
    answer: str | None = None  # yes or no, as the client was told
    subject: ViewedSubject | None = None
    asked: str | None = None
    moment: str | None = None
    address: str | None = None
    change_id: str | None = None
    result: str | None = None
    source: str | None = None
    second: str | None = None
    count: int | None = None


encode_view = msgspec.json.Encoder().encode
"""Encodes a view, as one line without a newline."""


def is_of(record: Record, tenant: TenantId, tenant_record: TenantRecordId | None) -> bool:
    """Whether a record is of this tenant, and not of one that had its name before."""
    return (
        getattr(record, "tenant", None) == tenant and getattr(record, "tenant_record", None) == tenant_record
    )


def view_of(record: Record, tenant: TenantId, tenant_record: TenantRecordId | None) -> ViewedRecord | None:
    """What this tenant sees of a record; None for what is not its own, and for kinds that are nobody's."""
    make = _MAKERS.get(type(record))
    return make(record) if make is not None and is_of(record, tenant, tenant_record) else None


def _envelope(record: Record, kind: str) -> dict[str, Any]:
    return {"view": VIEW_VERSION, "id": record.id, "kind": kind, "time": record.time}


def _of_decision(record: DecisionRecord) -> ViewedRecord:
    is_allow = record.decision == ALLOW
    problem = None if is_allow else _problem(record.reason, record.request.route)
    request = record.request
    return ViewedRecord(
        **_envelope(record, "decision"),
        key_id=record.key_id,
        claimed_key_id=record.claimed_key_id,
        principal=record.principal,
        action=record.action,
        decision=record.decision,
        status=None if problem is None else problem.status,
        problem=None if problem is None else problem.kind,
        resource=_resource(record.resource, is_allow=is_allow),
        size=record.size if is_allow else None,
        request=ViewedRequest(
            method=request.method,
            route=request.route,
            client=request.client,
            agent=request.agent,
            trace_id=request.trace_id,
        ),
    )


def _of_outcome(record: OutcomeRecord) -> ViewedRecord:
    """An outcome. The inference server that was asked, and what it was asked about, are the operator's."""
    problem = None if record.reason is None else _problem(record.reason, "-")
    return ViewedRecord(
        **_envelope(record, "outcome"),
        key_id=record.key_id,
        decision_id=record.decision_id,
        ending=record.ending,
        status=record.status,
        problem=None if problem is None else problem.kind,
        bytes=record.bytes,
        microseconds=round(record.elapsed_milliseconds * 1000),
        sha256=record.sha256,
    )


def _of_change(record: ChangeRecord) -> ViewedRecord:
    """A change. Who made it is the operator's business, and so is what else it was about."""
    return ViewedRecord(**_envelope(record, "change"), key_id=record.key_id, action=record.action)


def _of_change_outcome(record: ChangeOutcomeRecord) -> ViewedRecord:
    return ViewedRecord(
        **_envelope(record, "change-outcome"),
        key_id=record.key_id,
        change_id=record.change_id,
        result="made" if record.generation is not None else "not-made",
    )


def _of_summary(record: SummaryRecord) -> ViewedRecord:
    return ViewedRecord(
        **_envelope(record, "summary"),
        claimed_key_id=record.claimed_key_id,
        source=record.source,
        second=record.second,
        count=record.count,
    )


def _of_question(record: QuestionRecord) -> ViewedRecord:
    subject = record.subject
    return ViewedRecord(
        **_envelope(record, "question"),
        key_id=record.key_id,
        ask_id=record.ask_id,
        item=record.item,
        answer="yes" if record.answer == YES else "no",
        subject=None if subject is None else ViewedSubject(kind=subject.kind, id=subject.id),
        asked=record.asked,
        resource=_resource(record.resource, is_allow=False),
        moment=record.moment,
        address=record.address,
    )


def _resource(part: ResourcePart | None, *, is_allow: bool) -> ViewedResource | None:
    """A resource. Of what was refused only what the client named: the rest is what the gateway found."""
    if part is None:
        return None
    if not is_allow:
        return ViewedResource(kind=part.kind, requested=part.requested)
    return ViewedResource(
        kind=part.kind,
        requested=part.requested,
        model=part.model,
        package=part.package,
        file=part.file,
        md5=part.md5,
        sha256=part.sha256,
    )


def _problem(reason: str, route: str) -> Problem | None:
    """What the client was told for a reason; None for one that this release does not know."""
    known = _REASONS.get(reason)
    return None if known is None or known is Reason.PERMITTED else problem_of(known, route)


_REASONS = {one.value: one for one in Reason}
_MAKERS: dict[type, Callable[[Any], ViewedRecord]] = {
    DecisionRecord: _of_decision,
    OutcomeRecord: _of_outcome,
    QuestionRecord: _of_question,
    ChangeRecord: _of_change,
    ChangeOutcomeRecord: _of_change_outcome,
    SummaryRecord: _of_summary,
}
