"""How many refusals of nobody get a record of their own.

A caller without a valid key costs us a record for each request, so a stranger could fill the disk.
So could whoever kept a key that was revoked: a key that is known and not valid makes nobody of its
holder, and is counted by itself, so that its summary still names it.

Within one second of the clock, a source gets a few records in full, for each such key that it shows,
and all sources together a few hundred; what comes beyond is counted, and one summary stands for it,
whose id every such refusal is given. The table holds only sources that got a record in this second,
so the total bounds it too.

This module counts, for one process; it writes nothing. Refusals of authenticated callers never come here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MANY_SOURCES = "many sources"
"""The source of the summary for what was beyond the total of one second."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """Whose refusals are counted together: an address or network, and the invalid key that it showed."""

    source: str
    claimed_key_id: str | None = None
    claimed_tenant: str | None = None  # whose key that is


_ANYBODY = Stranger(MANY_SOURCES)


@dataclass(slots=True, kw_only=True)
class Summary:
    """Refusals that have no record of their own, of one stranger in one second."""

    record_id: str
    stranger: Stranger
    second: int
    reasons: dict[str, int] = field(default_factory=dict)


class RefusalLimiter:
    """Counts the refusals of one second after the other."""

    __slots__ = ("_finished", "_open", "_per_source", "_recorded", "_second", "_total", "_total_recorded")

    def __init__(self, *, per_source: int, total: int) -> None:
        self._per_source = per_source
        self._total = total
        self._second = 0
        self._total_recorded = 0
        self._recorded: dict[Stranger, int] = {}
        self._open: dict[Stranger, Summary] = {}
        self._finished: deque[Summary] = deque()

    def count(self, stranger: Stranger, reason: str, second: int, new_id: Callable[[], str]) -> str | None:
        """None: record this one in full. Otherwise the id of the summary that stands for it."""
        if second != self._second:
            self._turn(second)
        recorded = self._recorded.get(stranger, 0)
        if recorded < self._per_source and self._total_recorded < self._total:
            self._recorded[stranger] = recorded + 1
            self._total_recorded += 1
            return None
        if recorded < self._per_source:
            stranger = _ANYBODY
        summary = self._open.get(stranger)
        if summary is None:
            summary = self._open[stranger] = Summary(record_id=new_id(), stranger=stranger, second=second)
        summary.reasons[reason] = summary.reasons.get(reason, 0) + 1
        return summary.record_id

    def first_due(self, second: int | None) -> Summary | None:
        """The oldest summary whose second is over; with None, of any second. It stays until it is dropped."""
        if self._open and second != self._second:
            self._turn(self._second if second is None else second)
        return self._finished[0] if self._finished else None

    def drop_first(self) -> None:
        """The first due summary is written."""
        self._finished.popleft()

    def _turn(self, second: int) -> None:
        self._finished.extend(self._open.values())
        self._open.clear()
        self._recorded.clear()
        self._total_recorded = 0
        self._second = second
