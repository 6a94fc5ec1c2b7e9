"""All that a key did: the damage of one that leaked, and what has to be looked at next.

What was made for a key (links, tokens) has its id in the log, and counts with it. Refusals count too: those
of a key that is valid no more are in the log under the key that they claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.audit.inquiries.uses import ELSEWHERE, OpenUses, Uses, count_within
from gateway.audit.record import (
    ChangeOutcomeRecord,
    ChangeRecord,
    DecisionRecord,
    OutcomeRecord,
    QuestionRecord,
    RefusedChangeRecord,
    SummaryRecord,
)
from gateway.audit.usage.tally import network_of

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import Record

MAX_NAMES: Final = 10_000  # of models, of files, of addresses and of changes
_ALLOW: Final = "allow"


class ChangeOfKey(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A change that the key made, or that was made to it."""

    time: str
    id: str
    actor: str
    action: str
    tenant: str | None = None
    key_id: str | None = None
    subject: tuple[str, ...] = ()
    result: str | None = None


class KeyHistory(msgspec.Struct, kw_only=True):
    """What is known of one key."""

    key_id: str
    tenant: str | None = None
    tenant_record: str | None = None
    first: str = ""
    last: str = ""
    requests: int = 0
    allowed: Uses = msgspec.field(default_factory=Uses)
    actions: dict[str, int] = {}  # that were allowed
    principals: dict[str, int] = {}
    models: dict[str, Uses] = {}
    files: dict[str, Uses] = {}
    networks: dict[str, int] = {}
    agents: dict[str, int] = {}
    refusals: dict[str, int] = {}  # by reason
    refused_names: dict[str, int] = {}  # models that it asked for in vain
    questions: int = 0
    changes_made: list[ChangeOfKey] = []
    changes_of_it: list[ChangeOfKey] = []
    changes_left_out: int = 0


class KeyReading:
    """Collects the history of a key."""

    def __init__(self, key_id: str) -> None:
        self.history = KeyHistory(key_id=key_id)
        self._open = OpenUses()
        self._changes: dict[str, ChangeOfKey] = {}

    def take(self, record: Record) -> None:  # noqa: C901 -- one case a kind of record
        """Look at one record."""
        history, key_id = self.history, self.history.key_id
        match record:
            case DecisionRecord() if key_id in {record.key_id, record.claimed_key_id}:
                self._seen(record)
                history.requests += 1
                count_within(history.networks, network_of(record.request.client), MAX_NAMES)
                if record.request.agent is not None:
                    count_within(history.agents, record.request.agent, MAX_NAMES)
                if record.decision == _ALLOW:
                    self._allowed(record)
                else:
                    self._refused(record)
            case OutcomeRecord() if record.key_id == key_id:
                self._open.close(record)
                if record.reason is not None:
                    count_within(history.refusals, record.reason, MAX_NAMES)
            case SummaryRecord() if record.claimed_key_id == key_id:
                self._seen(record)
                history.requests += record.count
                count_within(history.networks, network_of(record.source), MAX_NAMES, record.count)
                for reason, count in record.reasons.items():
                    count_within(history.refusals, reason, MAX_NAMES, count)
            case QuestionRecord() if record.key_id == key_id:
                self._seen(record)
                history.questions += 1
            case ChangeRecord() | RefusedChangeRecord() if key_id in {record.actor, record.key_id}:
                self._changed(record)
            case ChangeOutcomeRecord() if record.change_id in self._changes:
                self._changes[record.change_id].result = record.result

    def _seen(self, record: DecisionRecord | SummaryRecord | QuestionRecord) -> None:
        history = self.history
        history.first = min(history.first or record.time, record.time)
        history.last = max(history.last, record.time)
        history.tenant = history.tenant or record.tenant
        history.tenant_record = history.tenant_record or record.tenant_record

    def _allowed(self, record: DecisionRecord) -> None:
        history, resource = self.history, record.resource
        count_within(history.actions, record.action or record.request.method, MAX_NAMES)
        count_within(history.principals, record.principal or "unknown", MAX_NAMES)
        sums = [history.allowed]
        model = None if resource is None else resource.model or resource.requested
        if resource is not None and model is not None:
            sums.append(_sum_of(history.models, model))
            if resource.file is not None:
                named = [one for one in (model, resource.package, resource.file) if one]
                sums.append(_sum_of(history.files, "/".join(named)))
        self._open.open(record, *sums)

    def _refused(self, record: DecisionRecord) -> None:
        history, resource = self.history, record.resource
        count_within(history.refusals, record.reason, MAX_NAMES)
        name = None if resource is None else resource.requested or resource.model
        if name is not None:
            count_within(history.refused_names, name, MAX_NAMES)

    def _changed(self, record: ChangeRecord | RefusedChangeRecord) -> None:
        history = self.history
        made = history.changes_made if record.actor == history.key_id else history.changes_of_it
        if len(history.changes_made) + len(history.changes_of_it) >= MAX_NAMES:
            history.changes_left_out += 1
            return
        is_refused = isinstance(record, RefusedChangeRecord)
        change = ChangeOfKey(
            time=record.time,
            id=record.id,
            actor=record.actor,
            action=record.action,
            tenant=record.tenant,
            key_id=record.key_id,
            subject=record.subject,
            result=f"refused: {record.reason}" if isinstance(record, RefusedChangeRecord) else None,
        )
        made.append(change)
        if not is_refused:
            self._changes[record.id] = change


def _sum_of(sums: dict[str, Uses], name: str) -> Uses:
    if name not in sums and len(sums) >= MAX_NAMES:
        name = ELSEWHERE
    return sums.setdefault(name, Uses())
