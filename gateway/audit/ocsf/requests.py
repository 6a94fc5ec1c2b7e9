"""Requests as OCSF events: what was asked for and decided, how it ended, and what was refused by the count.

A decision is API Activity, but for a refusal of the credential itself, which is Authentication, and so are
the refusals that a summary stands for. The outcome of a request is an event of its own: `correlation_uid` is
the id of its decision, which is `metadata.uid` of that event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.ocsf.event import (
    OTHER,
    OcsfClass,
    Severity,
    endpoint,
    event_of,
    milliseconds_of,
    present,
    user_of,
)
from gateway.model.errors import Reason

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import (
        DecisionRecord,
        OutcomeRecord,
        QuestionRecord,
        ResourcePart,
        SummaryRecord,
    )

OF_CREDENTIALS: Final = frozenset(
    {
        Reason.NO_CREDENTIAL,
        Reason.UNSUPPORTED_SCHEME,
        Reason.MISTYPED_KEY,
        Reason.UNKNOWN_KEY,
        Reason.WRONG_CLIENT,
        Reason.MALFORMED_TOKEN,
        Reason.UNKNOWN_SIGNING_KEY,
        Reason.INVALID_TOKEN,
        Reason.EXPIRED_TOKEN,
        Reason.REVOKED_KEY,
        Reason.DISABLED_KEY,
        Reason.DECOY_KEY,
        Reason.EXPIRED_KEY,
        Reason.NOT_YET_VALID,
        Reason.OUTSIDE_NETWORKS,
        Reason.SUSPENDED_TENANT,
        Reason.REMOVED_TENANT,
        Reason.UNREADABLE_KEY,
        Reason.UNKNOWN_ISSUER,
        Reason.UNMAPPED_TOKEN,
        Reason.AMBIGUOUS_TOKEN,
        Reason.REVOKED_BINDING,
        Reason.TOO_MANY_BINDINGS,
        Reason.INVALID_LINK,
        Reason.EXPIRED_LINK,
        Reason.BAD_HOOK_SIGNATURE,
        Reason.UPSTREAM_UNAUTHORIZED,
    }
)
"""The reasons of a 401: no caller was authenticated, or the key is not valid."""

ALLOWED, DENIED = 1, 2  # action_id; and success and failure as status_id
_BLOCKED = 2  # disposition_id
_READ = 2
_LOGON, _NETWORK = 1, 3
_SECOND_MILLISECONDS = 1000
_NO_CALLER = "unknown"

_ACTIVITIES: Final = {
    **dict.fromkeys(("create", "add", "exchange", "report", "own", "publish"), 1),
    **dict.fromkeys(
        ("discover", "read", "identify", "introspect", "ask", "list", "explain", "readers", "removed"), _READ
    ),
    **dict.fromkeys(("audit-read", "storage-read", "environment-read", "cache-read"), _READ),
    **dict.fromkeys(
        ("change", "suspend", "resume", "restore", "enable", "disable", "rotate", "move", "release"), 3
    ),
    **dict.fromkeys(("plan", "rotations"), _READ),
    **dict.fromkeys(("storage-write", "cache-write", "apply"), 3),
    **dict.fromkeys(
        ("remove", "close", "revoke", "revoke-found", "forget", "remove-named", "disown", "unpublish"), 4
    ),
}
"""Activities of API Activity by the last word of an action."""

_METHODS: Final = frozenset({"OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH"})
_CONTROL: Final = ("security_control",)


def of_decision(record: DecisionRecord, line: bytes | None) -> dict[str, Any]:
    """One decision."""
    if record.decision == "deny" and record.reason in OF_CREDENTIALS:
        return _of_refused_credential(record, line)
    is_allowed = record.decision == "allow"
    profiles = (*_CONTROL, "trace") if record.request.trace_id else _CONTROL
    return event_of(
        record,
        "decision",
        line,
        OcsfClass.API,
        activity_of(record.action),
        severity=Severity.INFORMATIONAL if is_allowed else Severity.LOW,
        profiles=profiles,
        activity_name=record.action,
        actor={"user": user_of(record.key_id, record.tenant, record.tenant_record, record.principal)},
        api={"operation": record.action or record.request.method, "request": {"uid": record.id}},
        src_endpoint=endpoint(record.request.client),
        dst_endpoint={"name": record.node},
        http_request=_http_request(record),
        resources=_resources(record.resource, record.size),
        trace={"uid": record.request.trace_id} if record.request.trace_id else None,
        authorizations=_authorizations(record.decision, record.policies),
        message=_message(record.decision, record.action, record.resource),
        **_ruled(is_allowed=is_allowed, reason=record.reason),
        unmapped=_grounds(record),
    )


def activity_of(action: str | None) -> int:
    """The activity of an action: create, read, update, delete, or other."""
    if action is None:
        return 0
    return _ACTIVITIES.get(action.rpartition(".")[2], OTHER)


def _of_refused_credential(record: DecisionRecord, line: bytes | None) -> dict[str, Any]:
    key_id = record.key_id or record.claimed_key_id
    is_decoy = record.reason == Reason.DECOY_KEY
    return event_of(
        record,
        "decision",
        line,
        OcsfClass.AUTHENTICATION,
        _LOGON,
        severity=Severity.CRITICAL if is_decoy else Severity.LOW,
        profiles=_CONTROL,
        user=user_of(key_id, record.tenant, record.tenant_record, record.principal),
        service={"name": record.node},
        src_endpoint=endpoint(record.request.client),
        dst_endpoint={"name": record.node},
        http_request=_http_request(record),
        is_remote=True,
        logon_type_id=_NETWORK,
        message=_message(record.decision, record.action, record.resource),
        **_ruled(is_allowed=False, reason=record.reason),
        unmapped=_grounds(record)
        | present(
            action=record.action,
            claimed_key_id=record.claimed_key_id,
            resource=None if record.resource is None else msgspec.to_builtins(record.resource),
            trace_id=record.request.trace_id,
        ),
    )


def of_outcome(record: OutcomeRecord, line: bytes | None) -> dict[str, Any]:
    """How an allowed request ended."""
    is_whole = record.ending in {"complete", "relayed", "handed-off"}
    took = round(record.elapsed_milliseconds)
    return event_of(
        record,
        "outcome",
        line,
        OcsfClass.API,
        _READ,
        correlation=record.decision_id,
        actor={"user": user_of(record.key_id, record.tenant, record.tenant_record)},
        api={"operation": "outcome", "request": {"uid": record.decision_id}},
        src_endpoint={"name": _NO_CALLER},
        dst_endpoint={"name": record.node},
        http_response={"code": record.status, "body_length": record.bytes},
        duration=took,
        status_id=ALLOWED if is_whole else DENIED,
        status_code=record.reason or record.ending,
        unmapped=present(
            ending=record.ending,
            bytes=record.bytes,
            sha256=record.sha256,
            upstream=None if record.upstream is None else msgspec.to_builtins(record.upstream),
        ),
    )


def of_question(record: QuestionRecord, line: bytes | None) -> dict[str, Any]:
    """One question about access, and its answer. It is no read of what it is about."""
    return event_of(
        record,
        "question",
        line,
        OcsfClass.API,
        _READ,
        profiles=_CONTROL,
        correlation=record.ask_id,
        actor={"user": user_of(record.key_id, record.tenant, record.tenant_record)},
        api={"operation": "ask", "request": {"uid": record.ask_id}},
        src_endpoint={"name": _NO_CALLER},
        dst_endpoint={"name": record.node},
        resources=_resources(record.resource, None),
        authorizations=_authorizations(record.answer, record.policies),
        status_id=ALLOWED,
        status_code=record.reason,
        status_detail=f"the answer is {record.answer}",
        unmapped=present(
            answer=record.answer,
            asked=record.asked,
            item=record.item,
            subject=None if record.subject is None else msgspec.to_builtins(record.subject),
            moment=record.moment,
            address=record.address,
            grant=record.grant,
            generation=record.generation,
        ),
    )


def of_summary(record: SummaryRecord, line: bytes | None) -> dict[str, Any]:
    """Refusals of an anonymous caller beyond the rate limit."""
    start = milliseconds_of(record.second)
    return event_of(
        record,
        "summary",
        line,
        OcsfClass.AUTHENTICATION,
        _LOGON,
        severity=Severity.MEDIUM,
        profiles=_CONTROL,
        user=user_of(record.claimed_key_id, record.tenant, record.tenant_record),
        service={"name": record.node},
        src_endpoint=endpoint(record.source),
        dst_endpoint={"name": record.node},
        count=record.count,
        start_time=start,
        end_time=start + _SECOND_MILLISECONDS,
        is_remote=True,
        logon_type_id=_NETWORK,
        message=f"{record.count} refusals within a second",
        **_ruled(is_allowed=False, reason=max(record.reasons, key=record.reasons.__getitem__, default="")),
        unmapped={"reasons": record.reasons},
    )


def _ruled(*, is_allowed: bool, reason: str) -> dict[str, Any]:
    """Allowed or denied, as OCSF says it, and why."""
    return {
        "action_id": ALLOWED if is_allowed else DENIED,
        "disposition_id": ALLOWED if is_allowed else _BLOCKED,
        "status_id": ALLOWED if is_allowed else DENIED,
        "status_code": reason,
    }


def _authorizations(decision: str, policies: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"decision": decision, "policy": {"uid": policy}} for policy in policies]


def _http_request(record: DecisionRecord) -> dict[str, Any]:
    """The request as far as it is recorded: the path is the template of its route."""
    request = record.request
    return present(
        http_method=request.method if request.method in _METHODS else None,
        url={"path": request.route} if request.route else None,
        user_agent=request.agent,
        uid=record.id,
    )


def _resources(resource: ResourcePart | None, size: int | None) -> list[dict[str, Any]]:
    """What the request was about: its model or blob by name, and all of its names."""
    if resource is None:
        return []
    name = resource.model or resource.requested
    return [
        present(
            uid=resource.md5 or resource.subject or (resource.kind if name is None else None),
            name=name,
            type=resource.kind,
            data=msgspec.to_builtins(resource) | present(size=size),
        )
    ]


def _grounds(record: DecisionRecord) -> dict[str, Any]:
    return present(
        decision=record.decision,
        principal=record.principal,
        grant=record.grant,
        generation=record.generation,
    )


def _message(decision: str, action: str | None, resource: ResourcePart | None) -> str:
    words: tuple[str | None, ...] = decision, action
    if resource is not None:
        words += resource.model or resource.requested, resource.package, resource.file
    return " ".join(word for word in words if word)
