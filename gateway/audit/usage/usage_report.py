"""Figures of a period, summed up for a report: day by day, and by model, key, network and reason."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from gateway.audit.usage.figures import Figures

MAX_DAYS_SHOWN: Final = 3700  # ten years
MAX_NAMED: Final = 1000  # models, keys, networks of a report, those with most


class ReportedDay(msgspec.Struct, kw_only=True):
    """One day of a report."""

    day: str
    reads: int = 0
    runs: int = 0
    bytes: int = 0
    refusals: int = 0


class ReportedName(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to one model or key."""

    name: str
    reads: int
    runs: int
    bytes: int


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of a tenant, or of all."""

    tenant: str | None
    since: str | None
    until: str | None
    days: list[ReportedDay]
    models: list[ReportedName]
    keys: list[ReportedName]
    refusals: dict[str, int]  # by reason
    networks: dict[str, int]  # decisions by network

    @property
    def total(self) -> ReportedDay:
        """All days together."""
        whole = ReportedDay(day="all")
        for day in self.days:
            whole.reads += day.reads
            whole.runs += day.runs
            whole.bytes += day.bytes
            whole.refusals += day.refusals
        return whole


def report_of(figures: Figures, tenant: str | None, since: str | None, until: str | None) -> UsageReport:
    """Sum up. Days without anything are in it, from the first day of the period to the last."""
    rows = [row.day for row in figures.usage] + [one.day for one in figures.refusals]
    days = {name: ReportedDay(day=name) for name in _days(since or min(rows, default=None), until, rows)}
    models: dict[str, list[int]] = {}
    keys: dict[str, list[int]] = {}
    for row in figures.usage:
        day = days.setdefault(row.day, ReportedDay(day=row.day))
        day.reads += row.reads
        day.runs += row.runs
        day.bytes += row.bytes
        for sums, name in ((models, row.model), (keys, row.key_id)):
            if name is not None:
                sums[name] = _added(sums.get(name, [0, 0, 0]), row.reads, row.runs, row.bytes)
    refusals: Counter[str] = Counter()
    for one in figures.refusals:
        days.setdefault(one.day, ReportedDay(day=one.day)).refusals += one.count
        refusals[one.reason or ""] += one.count
    networks: Counter[str] = Counter()
    for one in figures.networks:
        networks[one.network or ""] += one.count
    return UsageReport(
        tenant=tenant,
        since=since,
        until=until,
        days=sorted(days.values(), key=lambda one: one.day),
        models=_named(models),
        keys=_named(keys),
        refusals=dict(refusals.most_common(MAX_NAMED)),
        networks=dict(networks.most_common(MAX_NAMED)),
    )


def _added(sums: list[int], *more: int) -> list[int]:
    return [one + two for one, two in zip(sums, more, strict=True)]


def _named(sums: dict[str, list[int]]) -> list[ReportedName]:
    """Those with most bytes first."""
    listed = (ReportedName(name=name, reads=one[0], runs=one[1], bytes=one[2]) for name, one in sums.items())
    return sorted(listed, key=lambda one: (-one.bytes, -one.reads, one.name))[:MAX_NAMED]


def _days(first: str | None, last: str | None, rows: Iterable[str]) -> Iterator[str]:
    """Every day of a period; without its end, up to the last that has anything.

    A forged record may name a day that no calendar has: then only the days that have something are there.
    """
    end_text = last or max(rows, default=None)
    if first is None or end_text is None:
        return
    try:
        day, end = date.fromisoformat(first), date.fromisoformat(end_text)
    except ValueError:
        return
    for _ in range(MAX_DAYS_SHOWN):
        if day > end:
            return
        yield day.isoformat()
        day += timedelta(days=1)
