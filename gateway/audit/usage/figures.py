"""Select from the counts of some days what a question is about, as rows for people, JSON and charts.

A tenant's question selects its own record alone.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.audit.timeline import time_text
from gateway.audit.usage.tally import parted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from gateway.audit.usage.tally import KeyUsage, UsageDay

_Row = TypeVar("_Row")

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
    room = None if most is None else most + 1
    for day in days:
        if not query.has_day(day.day):
            continue
        for who, key in _selected(day, query):
            _extend(usage, _usage_rows(day.day, who, key, query), room)
            if query.model is not None:
                continue  # a refusal and a network are not of a model
            _extend(refusals, _count_rows(day.day, who, "reason", key.refusals), room)
            _extend(networks, _count_rows(day.day, who, "network", key.networks), room)
            _extend(changes, _count_rows(day.day, who, "action", key.changes), room)
    every = (usage, refusals, networks, changes)
    is_cut = most is not None and any(len(rows) > most for rows in every)
    return Figures(
        usage=usage[:most],
        refusals=refusals[:most],
        networks=networks[:most],
        changes=changes[:most],
        is_cut=is_cut,
    )


def _extend(rows: list[_Row], more: Iterable[_Row], room: int | None) -> None:
    """Add rows, up to so many in all."""
    rows.extend(more if room is None else islice(more, max(0, room - len(rows))))


def _selected(day: UsageDay, query: UsageQuery) -> Iterator[tuple[dict[str, str | None], KeyUsage]]:
    for name, of_tenant in sorted(day.tenants.items()):
        tenant, record = parted(name)
        if not query.has_tenant(tenant, record):
            continue
        if query.key_id is None:
            keys = sorted(of_tenant.keys.items())
        else:
            keys = [(query.key_id, of_tenant.keys[query.key_id])] if query.key_id in of_tenant.keys else []
        for key_id, key in keys:
            yield {"tenant": tenant, "tenant_record": record, "key_id": key_id or None}, key


def _usage_rows(day: str, who: dict[str, str | None], key: KeyUsage, query: UsageQuery) -> Iterator[UsageRow]:
    for model, counts in sorted(key.models.items()):
        if query.model is None or model == query.model:
            yield UsageRow(
                day=day,
                **who,
                model=model or None,
                reads=counts.reads,
                runs=counts.runs,
                bytes=counts.bytes,
                first=time_text(counts.first),
                last=time_text(counts.last),
            )


def _count_rows(
    day: str, who: dict[str, str | None], name: str, counts: dict[str, int]
) -> Iterator[CountRow]:
    for what, count in sorted(counts.items()):
        yield CountRow(day=day, **who, **{name: what}, count=count)
