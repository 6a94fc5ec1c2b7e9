"""Rate-limit the audit records of refused anonymous callers, so that they cannot fill the disk.

A caller without a valid key costs a record for each request. Within one second of the clock, a source gets a
few records in full, and all sources together a few hundred. Refusals beyond that are counted, and one summary
record stands for them; every such refusal is given its id.

A key that is known and refused (revoked, disabled, expired, from outside its networks) is evidence, whatever
strangers send meanwhile: beyond the limits too, each such key has a full record for each reason and second.
It is written after the answer, with the next records: a stranger's refusal beyond the limits writes nothing,
so a write before the answer would tell by its time that the key is known. Further refusals of such a key are
counted in a summary of its own.

Memory is bounded against somebody who owns many revoked keys. Which keys have their record is remembered for
a bounded number; when that is reached, all of them are forgotten, and a key gets a second record rather than
none. Of summaries there is a bounded number as well, and the refusals of further keys are counted together.
On the disk such a caller costs no more than the holder of valid keys, whose every request is recorded.

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


MAX_NOTED = 5_000  # known keys, each with a reason, that have their record of this second: some 1.2 MB
MAX_SUMMARIES = 500  # of this second; those of strangers are bounded by the total: some 0.5 MB


class AnonymousCaller(msgspec.Struct, frozen=True, gc=False):
    """The unit of counting: an address or network, and the invalid key that was presented."""

    source: str
    claimed_key_id: str | None = None
    claimed_tenant: str | None = None  # the owner of that key
    claimed_tenant_record: str | None = None  # the id of its record


_MANY_SOURCES = AnonymousCaller(MANY_SOURCES)


class Counted(msgspec.Struct, frozen=True, gc=False):
    """A refusal beyond the limits: the id of the record that stands for it, and whether that is its own.

    Its own is written after the answer.
    """

    record_id: str
    is_own: bool


@dataclass(slots=True, kw_only=True)
class Summary:
    """Refusals that have no record of their own, of one source and key in one second."""

    record_id: str
    caller: AnonymousCaller
    second: int
    reasons: dict[str, int] = field(default_factory=dict)


class RefusalLimiter:
    """Counts the refusals of the current second, and keeps the finished summaries until they are written."""

    __slots__ = (
        "_finished",
        "_noted",
        "_open",
        "_per_source",
        "_recorded",
        "_second",
        "_total",
        "_total_recorded",
    )

    def __init__(self, *, per_source: int, total: int) -> None:
        self._per_source = per_source
        self._total = total
        self._second = 0
        self._total_recorded = 0
        self._recorded: dict[str, int] = {}  # by source, whether its keys are known or not
        self._noted: set[tuple[str, str]] = set()  # key ids and reasons that have a record of this second
        self._open: dict[AnonymousCaller, Summary] = {}
        self._finished: deque[Summary] = deque()

    def count(
        self, caller: AnonymousCaller, reason: str, second: int, new_id: Callable[[], str]
    ) -> Counted | None:
        """Count a refusal. None: record it in full, now."""
        if second != self._second:
            self._start_second(second)
        key_id, recorded = caller.claimed_key_id, self._recorded.get(caller.source, 0)
        is_new = key_id is not None and self._note(key_id, reason)
        if recorded < self._per_source and self._total_recorded < self._total:
            self._recorded[caller.source] = recorded + 1
            self._total_recorded += 1
            return None
        if is_new:
            return Counted(new_id(), is_own=True)
        if key_id is None and recorded < self._per_source:
            caller = _MANY_SOURCES
        summary = self._open.get(caller)
        if summary is None and key_id is not None and len(self._open) >= MAX_SUMMARIES:
            caller = _MANY_SOURCES
            summary = self._open.get(caller)
        if summary is None:
            summary = self._open[caller] = Summary(record_id=new_id(), caller=caller, second=second)
        summary.reasons[reason] = summary.reasons.get(reason, 0) + 1
        return Counted(summary.record_id, is_own=False)

    def _note(self, key_id: str, reason: str) -> bool:
        """Whether a known key has no record for this reason in this second yet. From now on it has."""
        noted = (key_id, reason)
        if noted in self._noted:
            return False
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted.add(noted)
        return True

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
        self._noted.clear()
        self._total_recorded = 0
        self._second = second
