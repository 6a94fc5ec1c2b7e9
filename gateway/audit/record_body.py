"""Encode the part of a record that does not depend on its position in the chain (the body).

The canonical form sorts names, so position and body alternate: a body is the six pieces between the values
that `Chain.seal_all` fills in (`SEALED`). All of it together is, byte for byte, the record encoded as a
whole, and costs no sorting: the pieces are in order already.

    {"action":"read","chain":"·","decision":...,"id":"·","key_id":...,"prev":"·",...,"seq":·,"size":...,"time":"·"}

The pieces of a decision are joined from members that `record_fields.py` encodes.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gateway.audit.record import SCHEMA_VERSION, SubjectPart, UpstreamPart, encode
from gateway.audit.record_fields import (
    REMEMBERED,
    found_members,
    members,
    named_member,
    named_part,
    principal_kind,
    request_member,
    secrets_of,
)
from gateway.audit.scrub import clean_client, clean_name
from gateway.audit.timeline import time_text
from gateway.model.errors import Reason
from gateway.model.questions import Evaluated

if TYPE_CHECKING:
    from gateway.audit.request_secrets import RequestSecrets
    from gateway.model.access import Action, Principal
    from gateway.model.questions import Answered
    from gateway.model.verdicts import Admission, Outcome, Rejection, ServerOutcome

Body = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""The pieces of a record in front of its chain, id, previous hash, sequence number and time, and the end."""

SEALED = b'%b"chain":"%b",%b"id":"%b",%b"prev":"%b",%b"seq":%d,%b"time":"%b"%b'
"""A whole record, but for its hash, of the pieces of its body and what is between them."""

_POSITION = ("chain", "id", "prev", "seq", "time")
_SCHEMA = b'"schema":%d,' % SCHEMA_VERSION
_END = b"}"
_MICROSECONDS = 1000  # in a millisecond


class RecordBodies:
    """Encodes the bodies of a node's decision records, of their questions and of their outcomes."""

    def __init__(self, node: str) -> None:
        self._node = node

    def of_outcome(self, decision_id: str, principal: Principal, outcome: Outcome) -> Body:
        """The body of an outcome record. Only the tenant and key names may need JSON escapes."""
        reason, sha256, upstream = outcome.reason, outcome.sha256, outcome.upstream
        key, node, owner = _who(self._node, principal.tenant, principal.tenant_record, principal.key_id)
        return (
            b'{"bytes":%d,' % outcome.bytes_sent,
            b'"decision_id":"%b","ending":"%b",' % (decision_id.encode(), outcome.ending.encode()),
            b"%b%d%b" % (key, round(outcome.milliseconds * _MICROSECONDS), node),
            _SCHEMA if reason is None else b'"reason":"%b",%b' % (reason.encode(), _SCHEMA),
            b'%b"status":%d,%b'
            % (b"" if sha256 is None else b'"sha256":"%b",' % sha256.encode(), outcome.status, owner),
            _END if upstream is None else b',"upstream":%b}' % encode(_upstream_part(upstream)),
        )

    def of_refusal(self, rejection: Rejection) -> Body:
        """The body of the record of a refusal."""
        principal, secrets = rejection.principal, secrets_of(rejection.request)
        first, second, grant, third, fourth, fifth = _refused(
            self._node,
            rejection.reason,
            principal,
            (rejection.claimed_tenant, rejection.claimed_tenant_record, rejection.claimed_key_id),
            rejection.action,
            rejection.grant,
            rejection.policies,
        )
        generation = b"" if rejection.stamp is None else b'"generation":%d,' % rejection.stamp.generation
        request = request_member(rejection.request, secrets)
        resource = named_member(rejection.resource, rejection.model, secrets)
        fourth += request + resource + _SCHEMA
        return first, second + generation + grant, third, fourth, fifth, _end_of(principal)

    def of_allow(self, admission: Admission) -> Body:
        """The body of the record of an allow."""
        allowed, request = admission.allowed, admission.request
        access = allowed.access
        principal, secrets = access.principal, secrets_of(request)
        first, second, grant, third, fourth, fifth = _permitted(
            self._node, principal, access.action, allowed.grant, allowed.policies
        )
        resource, size = found_members(admission.found, access.resource, allowed.model, secrets)
        return (
            first,
            b"%b%d%b" % (second, admission.stamp.generation, grant),
            third,
            b"%b%b%b%b" % (fourth, request_member(request, secrets), resource, _SCHEMA),
            size + fifth,
            _end_of(principal),
        )

    def of_questions(self, ask_id: str, admission: Admission) -> list[Body]:
        """The bodies of the records of all questions that a request asked; none for any other request."""
        if not isinstance(admission.found, Evaluated):
            return []
        principal, secrets = admission.allowed.access.principal, secrets_of(admission.request)
        return [
            self._of_question(ask_id, item, principal, answered, secrets)
            for item, answered in enumerate(admission.found.answers)
        ]

    def _of_question(
        self, ask_id: str, item: int, caller: Principal, answered: Answered, secrets: RequestSecrets
    ) -> Body:
        question, stamp = answered.question, answered.stamp
        subject = question.subject
        return body_of(
            "question",
            node=self._node,
            ask_id=ask_id,
            item=item,
            tenant=caller.tenant,
            tenant_record=caller.tenant_record,
            key_id=caller.key_id,
            answer=answered.answer,
            reason=answered.reason.value,
            subject=subject and SubjectPart(subject.kind.value, clean_name(subject.name, secrets)),
            asked=question.action and question.action.value,
            resource=named_part(question.resource, answered.model, secrets),
            grant=answered.grant,
            policies=answered.policies,
            generation=stamp.generation if stamp is not None and stamp.leaves else None,
            moment=None if question.moment is None else time_text(question.moment),
            address=question.address and clean_client(question.address),
        )


def body_of(kind: str, **fields: Any) -> Body:
    """The body of a record of any kind, of its fields. Slower than those above: for records that are rare."""
    named = {**fields, "kind": kind, "schema": SCHEMA_VERSION}
    bounds = ("", *_POSITION, "~")
    first, *others, last = (
        members(**{name: value for name, value in named.items() if low < name < high})
        for low, high in pairwise(bounds)
    )
    second, third, fourth, fifth = others
    return b"{" + first, second, third, fourth, fifth, b",%b}" % last[:-1] if last else _END


def _end_of(principal: Principal | None) -> bytes:
    """What comes after the time of a decision: the id of an access token, where the request had one."""
    if principal is None or principal.token_id is None:
        return _END
    return b",%b}" % members(token_id=principal.token_id)[:-1]


def _upstream_part(upstream: ServerOutcome) -> UpstreamPart:
    return UpstreamPart(
        server=upstream.server,
        status=upstream.status,
        bytes=upstream.bytes_received,
        microseconds=round(upstream.milliseconds * _MICROSECONDS),
    )


@lru_cache(REMEMBERED)
def _permitted(
    node: str, principal: Principal, action: Action, grant: str | None, policies: tuple[str, ...]
) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """What the record of an allow says of the caller and of the rules, around what is of the request."""
    return (
        b"{" + members(action=action.value),
        members(decision="allow") + b'"generation":',
        b"," + members(grant=grant),
        members(key_id=principal.key_id, kind="decision", node=node, policies=policies),
        members(principal=principal_kind(principal), reason=Reason.PERMITTED.value),
        members(tenant=principal.tenant, tenant_record=principal.tenant_record),
    )


@lru_cache(REMEMBERED)
def _refused(
    node: str,
    reason: Reason,
    principal: Principal | None,
    claimed: tuple[str | None, str | None, str | None],
    action: str | None,
    grant: str | None,
    policies: tuple[str, ...],
) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """What the record of a refusal says of the caller and of the rules, around what is of the request.

    `claimed` is the tenant, its record and the key that an invalid credential names.
    """
    tenant, tenant_record, claimed_key_id = claimed
    key_id = None
    if principal is not None:
        tenant, tenant_record, key_id = principal.tenant, principal.tenant_record, principal.key_id
    return (
        b"{" + members(action=action),
        members(claimed_key_id=claimed_key_id, decision="deny"),
        members(grant=grant),
        members(key_id=key_id, kind="decision", node=node, policies=policies),
        members(principal=principal_kind(principal) if principal else None, reason=reason.value),
        members(tenant=tenant, tenant_record=tenant_record),
    )


@lru_cache(REMEMBERED)
def _who(
    node: str, tenant: str | None, tenant_record: str | None, key_id: str | None
) -> tuple[bytes, bytes, bytes]:
    """What an outcome says of the caller: up to its duration, then its node, then its tenant."""
    opened = members(key_id=key_id, kind="outcome") + b'"microseconds":'
    return opened, b"," + members(node=node), members(tenant=tenant, tenant_record=tenant_record)
