"""Encode the bodies of records other than decisions and their outcomes: changes, summaries, gaps, events.

A body is the part of a record without its position in the chain (`record_body.py`). The records are those of
the schema; a test holds that both give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.record_body import body_of
from gateway.audit.scrub import clean_name
from gateway.audit.timeline import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.audit.gap import Gap
    from gateway.audit.record import Event
    from gateway.audit.record_body import Body
    from gateway.audit.refusal_limiter import Summary
    from gateway.model.verdicts import Change

_MAX_RESULT_CHARACTERS = 200  # a reason, not a stack trace
_MAX_WHY_CHARACTERS = 500


class RetentionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a `retention` record says (`record.RetentionRecord`)."""

    state: str
    why: str
    segments: int
    bytes: int
    until: str | None = None
    consumers: tuple[str, ...] = ()
    note: str | None = None


class EventBodies:
    """Encodes the bodies of a node's records."""

    def __init__(self, node: str) -> None:
        self._node = node

    def of_change(self, change: Change) -> Body:
        """A change that is about to be made."""
        return body_of(
            "change",
            node=self._node,
            actor=clean_name(change.actor),
            action=change.action,
            tenant=change.tenant,
            tenant_record=change.tenant_record,
            key_id=change.key_id,
            subject=tuple(map(clean_name, change.subject)),
        )

    def of_change_outcome(
        self,
        change_id: str,
        change: Change,
        generation: int | None,
        result: str,
        digests: tuple[str, str] | None,
    ) -> Body:
        """How a change ended."""
        before, after = digests or (None, None)
        return body_of(
            "change-outcome",
            node=self._node,
            change_id=change_id,
            tenant=change.tenant,
            tenant_record=change.tenant_record,
            key_id=change.key_id,
            generation=generation,
            result=clean_name(result)[:_MAX_RESULT_CHARACTERS],
            before=before,
            after=after,
        )

    def of_summary(self, summary: Summary) -> Body:
        """Refusals of an anonymous caller beyond the rate limit."""
        return body_of(
            "summary",
            node=self._node,
            source=summary.caller.source,
            tenant=summary.caller.claimed_tenant,
            tenant_record=summary.caller.claimed_tenant_record,
            claimed_key_id=summary.caller.claimed_key_id,
            second=time_text(summary.second),
            count=sum(summary.reasons.values()),
            reasons=summary.reasons,
        )

    def of_retention(self, event: RetentionEvent) -> Body:
        """What retention is about to do."""
        return body_of(
            "retention",
            node=self._node,
            state=event.state,
            why=event.why,
            segments=event.segments,
            bytes=event.bytes,
            until=event.until,
            consumers=event.consumers,
            note=event.note,
        )

    def of_gap(self, gap: Gap) -> Body:
        """A time in which nothing could be recorded."""
        return body_of(
            "gap",
            node=self._node,
            since=time_text(gap.since),
            until=time_text(gap.until),
            refused=gap.refused,
            why=clean_name(gap.why)[:_MAX_WHY_CHARACTERS],
        )

    def of_event(self, kind: type[Event], fields: Mapping[str, Any]) -> Body:
        """What is neither about a request nor a change of facts. Its text is cleaned as names are."""
        cleaned = {name: _cleaned(one) for name, one in fields.items()}
        return body_of(str(kind.__struct_config__.tag), node=self._node, **cleaned)


def _cleaned(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_cleaned, value))
    return clean_name(value) if isinstance(value, str) else value
