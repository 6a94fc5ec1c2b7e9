"""Encode the tails of records other than decisions and their outcomes: changes, summaries, gaps.

A tail is the part of a record after its envelope (`record_body.py`). The records are those of the schema; a
test holds that both give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.audit.record_fields import members
from gateway.audit.scrub import clean_name
from gateway.audit.timeline import time_text

if TYPE_CHECKING:
    from gateway.audit.gap import Gap
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
    """Encodes the tails of a node's records."""

    def __init__(self, node: str) -> None:
        self._node = node

    def of_change(self, change: Change) -> bytes:
        """A change that is about to be made."""
        return b"%b}" % members(
            node=self._node,
            actor=clean_name(change.actor),
            action=change.action,
            tenant=change.tenant,
            key_id=change.key_id,
            subject=tuple(map(clean_name, change.subject)),
        )

    def of_change_outcome(self, change_id: str, change: Change, generation: int | None, result: str) -> bytes:
        """How a change ended."""
        return b"%b}" % members(
            node=self._node,
            change_id=change_id,
            tenant=change.tenant,
            key_id=change.key_id,
            generation=generation,
            result=clean_name(result)[:_MAX_RESULT_CHARACTERS],
        )

    def of_summary(self, summary: Summary) -> bytes:
        """Refusals of an anonymous caller beyond the rate limit."""
        return b"%b}" % members(
            node=self._node,
            source=summary.caller.source,
            tenant=summary.caller.claimed_tenant,
            claimed_key_id=summary.caller.claimed_key_id,
            second=time_text(summary.second),
            count=sum(summary.reasons.values()),
            reasons=summary.reasons,
        )

    def of_retention(self, event: RetentionEvent) -> bytes:
        """What retention is about to do."""
        return b"%b}" % members(
            node=self._node,
            state=event.state,
            why=event.why,
            segments=event.segments,
            bytes=event.bytes,
            until=event.until,
            consumers=event.consumers,
            note=event.note,
        )

    def of_gap(self, gap: Gap) -> bytes:
        """A time in which nothing could be recorded."""
        return b"%b}" % members(
            node=self._node,
            since=time_text(gap.since),
            until=time_text(gap.until),
            refused=gap.refused,
            why=clean_name(gap.why)[:_MAX_WHY_CHARACTERS],
        )
