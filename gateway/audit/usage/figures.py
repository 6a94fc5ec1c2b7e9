"""Select from the counts of some days what a question is about, as rows for people, JSON and charts.

A tenant's question selects its own record alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.audit.usage.tally import parted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from gateway.audit.usage.tally import KeyUsage, UsageCounts, UsageDay

    _Selected = tuple[str | None, str | None, str | None, KeyUsage]  # tenant, its record, key
    _Who = tuple[str, str | None, str | None, str | None]  # day, tenant, its record, key

MAX_ROWS_TOLD: Final = 5000
"""Of each kind in one answer; what is cut off, an answer says."""


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a question is about: all given criteria must match. Days are text, `until` is inclusive."""

    tenant: str | None = None
    tenant_record: str | None = None
    is_of_one_record: bool = False  # then `tenant_record` counts also where it is None
    key_id: str | None = None
    model: str | None = None
    since: str | None = None
    until: str | None = None

    def has_day(self, day: str) -> bool:
        """Whether a day is asked about."""
        return (self.since is None or day >= self.since) and (self.until is None or day <= self.until)

    def has_tenant(self, tenant: str | None, record: str | None) -> bool:
        """Whether a tenant record is asked about."""
        if self.tenant is not None and tenant != self.tenant:
            return False
        return record == self.tenant_record or (self.tenant_record is None and not self.is_of_one_record)


class UsageRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key did with one model in a day."""

    day: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    model: str | None = None
    reads: int
    runs: int
    bytes: int
    first: str
    last: str


class CountRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often something happened to one key in a day: a refusal, a request from a network, a change."""

    day: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    reason: str | None = None
    network: str | None = None
    action: str | None = None
    count: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question."""

    usage: list[UsageRow]
    refusals: list[CountRow]
    networks: list[CountRow]
    changes: list[CountRow]
    is_cut: bool = False  # there are more rows than an answer has


def figures_of(days: Iterable[UsageDay], query: UsageQuery, most: int | None = MAX_ROWS_TOLD) -> Figures:
    """What the counts of these days say. Days come one by one, so that one at a time needs memory."""
    usage: list[UsageRow] = []
    refusals: list[CountRow] = []
    networks: list[CountRow] = []
    changes: list[CountRow] = []
    room = sys.maxsize if most is None else most + 1
    for day in days:
        if not query.has_day(day.day):
            continue
        for tenant, record, key_id, key in _selected(day, query):
            who = day.day, tenant, record, key_id
            if key.models and len(usage) < room:
                usage += _usage_rows(who, key.models, query.model)
            if query.model is not None:
                continue  # a refusal and a network are not of a model
            if key.refusals and len(refusals) < room:
                refusals += _count_rows(who, "reason", key.refusals)
            if key.networks and len(networks) < room:
                networks += _count_rows(who, "network", key.networks)
            if key.changes and len(changes) < room:
                changes += _count_rows(who, "action", key.changes)
    every = (usage, refusals, networks, changes)
    return Figures(
        usage=usage[:most],
        refusals=refusals[:most],
        networks=networks[:most],
        changes=changes[:most],
        is_cut=any(len(rows) >= room for rows in every),
    )


def _selected(day: UsageDay, query: UsageQuery) -> Iterator[_Selected]:
    """The keys that are asked about, each with its tenant and the tenant's record."""
    for name, of_tenant in day.tenants.items():
        tenant, record = parted(name)
        if not query.has_tenant(tenant, record):
            continue
        if query.key_id is None:
            for key_id, key in of_tenant.keys.items():
                yield tenant, record, key_id or None, key
        elif query.key_id in of_tenant.keys:
            yield tenant, record, query.key_id, of_tenant.keys[query.key_id]


def _usage_rows(who: _Who, models: dict[str, UsageCounts], asked: str | None) -> list[UsageRow]:
    day, tenant, record, key_id = who
    return [
        UsageRow(
            day=day,
            tenant=tenant,
            tenant_record=record,
            key_id=key_id,
            model=model or None,
            reads=counts.reads,
            runs=counts.runs,
            bytes=counts.bytes,
            first=counts.first,
            last=counts.last,
        )
        for model, counts in models.items()
        if asked is None or model == asked
    ]


def _count_rows(who: _Who, name: str, counts: dict[str, int]) -> list[CountRow]:
    day, tenant, record, key_id = who
    named: dict[str, Any] = {"day": day, "tenant": tenant, "tenant_record": record, "key_id": key_id}
    return [CountRow(**named, **{name: what}, count=count) for what, count in counts.items()]
