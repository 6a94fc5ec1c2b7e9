"""Encode the part of a record that does not depend on its position in the chain (the tail).

    {"kind":"decision","schema":1,"id":"...","chain":"...","seq":7,"prev":"...","time":"..."   the envelope
    ,"node":"...","decision":"allow",...,"request":{...}}                                      the tail

Envelope and tail together are the canonical bytes of the record, the same as if it had been encoded as a
whole. The tail of a decision is joined from members that `record_fields.py` encodes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from gateway.audit.record import SubjectPart, UpstreamPart, encode
from gateway.audit.record_fields import (
    REMEMBERED,
    found_members,
    members,
    named_member,
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

_OUTCOME = b',"node":"%b","decision_id":"%b"%b,"ending":"%b","status":%d,"bytes":%d,"milliseconds":%a%b%b}'


class RecordBodies:
    """Encodes the tails of a node's decision records, of their questions and of their outcomes."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._raw_node = node.encode()

    def of_outcome(self, decision_id: str, principal: Principal, outcome: Outcome) -> bytes:
        """The tail of an outcome record. Only the tenant and key names may need JSON escapes."""
        sha256 = b"" if outcome.sha256 is None else b',"sha256":"%b"' % outcome.sha256.encode()
        return _OUTCOME % (
            self._raw_node,
            decision_id.encode(),
            _who(principal.tenant, principal.tenant_record, principal.key_id),
            outcome.ending.encode(),
            outcome.status,
            outcome.bytes_sent,
            round(outcome.milliseconds, 3),
            sha256,
            b"" if outcome.reason is None and outcome.upstream is None else _of_forwarded(outcome),
        )

    def of_refusal(self, rejection: Rejection) -> bytes:
        """The tail of the record of a refusal."""
        principal, secrets = rejection.principal, secrets_of(rejection.request)
        decided = members(
            node=self._node,
            decision="deny",
            reason=rejection.reason.value,
            tenant=principal.tenant if principal else rejection.claimed_tenant,
            tenant_record=principal.tenant_record if principal else rejection.claimed_tenant_record,
            key_id=principal.key_id if principal else None,
            claimed_key_id=rejection.claimed_key_id,
            principal=principal_kind(principal) if principal else None,
            action=rejection.action,
            grant=rejection.grant,
            policies=rejection.policies,
            generation=rejection.stamp.generation if rejection.stamp else None,
        )
        resource = named_member(rejection.resource, rejection.model, secrets)
        return b"%b%b%b}" % (decided, resource, request_member(rejection.request, secrets))

    def of_allow(self, admission: Admission) -> bytes:
        """The tail of the record of an allow."""
        allowed, request = admission.allowed, admission.request
        access = allowed.access
        principal, secrets = access.principal, secrets_of(request)
        return b'%b,"generation":%d%b%b}' % (
            _permitted(self._node, principal, access.action, allowed.grant, allowed.policies),
            admission.stamp.generation,
            found_members(admission.found, access.resource, allowed.model, secrets),
            request_member(request, secrets),
        )

    def of_questions(self, ask_id: str, admission: Admission) -> list[bytes]:
        """The tails of the records of all questions that a request asked; none for any other request."""
        if not isinstance(admission.found, Evaluated):
            return []
        principal, secrets = admission.allowed.access.principal, secrets_of(admission.request)
        return [
            self._of_question(ask_id, item, principal, answered, secrets)
            for item, answered in enumerate(admission.found.answers)
        ]

    def _of_question(
        self, ask_id: str, item: int, caller: Principal, answered: Answered, secrets: RequestSecrets
    ) -> bytes:
        question, stamp = answered.question, answered.stamp
        subject = question.subject
        asked = members(
            node=self._node,
            ask_id=ask_id,
            item=item,
            tenant=caller.tenant,
            key_id=caller.key_id,
            answer=answered.answer,
            reason=answered.reason.value,
            subject=subject and SubjectPart(subject.kind.value, clean_name(subject.name, secrets)),
            asked=question.action and question.action.value,
        )
        stands_on = members(
            grant=answered.grant,
            policies=answered.policies,
            generation=stamp.generation if stamp is not None and stamp.leaves else None,
            moment=None if question.moment is None else time_text(question.moment),
            address=question.address and clean_client(question.address),
        )
        return b"%b%b%b}" % (asked, named_member(question.resource, answered.model, secrets), stands_on)


def _of_forwarded(outcome: Outcome) -> bytes:
    """The fields that only the outcomes of forwarded requests have."""
    reason = b"" if outcome.reason is None else b',"reason":"%b"' % outcome.reason.encode()
    if outcome.upstream is None:
        return reason
    return b'%b,"upstream":%b' % (reason, encode(_upstream_part(outcome.upstream)))


def _upstream_part(upstream: ServerOutcome) -> UpstreamPart:
    return UpstreamPart(
        server=upstream.server,
        status=upstream.status,
        bytes=upstream.bytes_received,
        milliseconds=round(upstream.milliseconds, 3),
    )


@lru_cache(REMEMBERED)
def _permitted(
    node: str, principal: Principal, action: Action, grant: str | None, policies: tuple[str, ...]
) -> bytes:
    """What the record of an allow says of the caller and of the rules."""
    return members(
        node=node,
        decision="allow",
        reason=Reason.PERMITTED.value,
        tenant=principal.tenant,
        tenant_record=principal.tenant_record,
        key_id=principal.key_id,
        principal=principal_kind(principal),
        action=action.value,
        grant=grant,
        policies=policies,
    )


@lru_cache(REMEMBERED)
def _who(tenant: str | None, tenant_record: str | None, key_id: str | None) -> bytes:
    """The fields that name tenant and key of an outcome; an absent one is left out."""
    return members(tenant=tenant, tenant_record=tenant_record, key_id=key_id)
