"""Rate-limit the audit records of refused anonymous callers, so that they cannot fill the disk.

A caller without a valid key costs a record for each request. So does the holder of a revoked key: with a
key that is known but not valid a caller is anonymous, and is counted by that key, so that its summary still
names it.

Within one second of the clock, a source gets a few records in full, for each such key that it presents, and
all sources together a few hundred. Refusals beyond that are counted, and one summary record stands for
them; every such refusal is given its id. The table holds only sources that got a record in this second, so
the total bounds it too.

This module counts, for one process; it writes nothing. Refusals of authenticated callers never come here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

MANY_SOURCES = "many sources"
"""The source of the summary for refusals beyond the total of one second."""


class AnonymousCaller(msgspec.Struct, frozen=True, gc=False):
    """The unit of counting: an address or network, and the invalid key that was presented."""

    source: str
    claimed_key_id: str | None = None
    claimed_tenant: str | None = None  # the owner of that key
    claimed_tenant_record: str | None = None  # the id of its record


_MANY_SOURCES = AnonymousCaller(MANY_SOURCES)


@dataclass(slots=True, kw_only=True)
class Summary:
    """Refusals that have no record of their own, of one source and key in one second."""

    record_id: str
    caller: AnonymousCaller
    second: int
    reasons: dict[str, int] = field(default_factory=dict)


class RefusalLimiter:
    """Counts the refusals of the current second, and keeps the finished summaries until they are written."""

    __slots__ = ("_finished", "_open", "_per_source", "_recorded", "_second", "_total", "_total_recorded")

    def __init__(self, *, per_source: int, total: int) -> None:
        self._per_source = per_source
        self._total = total
        self._second = 0
        self._total_recorded = 0
        self._recorded: dict[AnonymousCaller, int] = {}
        self._open: dict[AnonymousCaller, Summary] = {}
        self._finished: deque[Summary] = deque()

    def count(
        self, caller: AnonymousCaller, reason: str, second: int, new_id: Callable[[], str]
    ) -> str | None:
        """Count a refusal. None: record it in full. Otherwise the id of the summary that stands for it."""
        if second != self._second:
            self._start_second(second)
        recorded = self._recorded.get(caller, 0)
        if recorded < self._per_source and self._total_recorded < self._total:
            self._recorded[caller] = recorded + 1
            self._total_recorded += 1
            return None
        if recorded < self._per_source:
            caller = _MANY_SOURCES
        summary = self._open.get(caller)
        if summary is None:
            summary = self._open[caller] = Summary(record_id=new_id(), caller=caller, second=second)
        summary.reasons[reason] = summary.reasons.get(reason, 0) + 1
        return summary.record_id

    def first_due(self, second: int | None) -> Summary | None:
        """The oldest summary of a finished second (None: of any), which stays queued until dropped."""
        if self._open and second != self._second:
            self._start_second(self._second if second is None else second)
        return self._finished[0] if self._finished else None

    def drop_first(self) -> None:
        """Drop the first due summary, once it is written."""
        self._finished.popleft()

    def _start_second(self, second: int) -> None:
        self._finished.extend(self._open.values())
        self._open.clear()
        self._recorded.clear()
        self._total_recorded = 0
        self._second = second
