"""Deliver the log to one consumer: read a page, hand it over, note how far it is; at least once, in order.

A page is handed over until the target takes it. After a failure there is a pause that grows up to a minute,
with a random part, so that many nodes do not come back to a target at the same moment; a target that names a
pause of its own gets it, within bounds. Nothing is held in memory but one page: the disk is the buffer.

Progress is noted once a second and at the end. A process that is killed delivers up to a second again: the
record id tells a consumer what it has already. What it has is noted for retention chain by chain.

Each delivery runs in a thread with an event loop of its own (`runner.py`), so reading and a target may block:
they hold up nobody else. Non-goal: how a target is spoken to.
"""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.audit.canonical import MAX_INTEGER
from gateway.audit.folder import chain_started, group_segments
from gateway.audit.index import encode_cursor, parse_cursor
from gateway.audit.keeping.needs import Needs, read_needs
from gateway.audit.timeline import microseconds, time_text
from gateway.model.errors import CachegateError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from gateway.audit.consumers.registry import Consumer, ConsumerRegistry
    from gateway.audit.index import Cursor, IndexedRecord, IndexReader

PAGE_RECORDS = 500
PAGE_BYTES = 1 << 20
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.005, 0.05  # between two looks for a new record
SAVE_SECONDS = 1.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 60.0
LONGEST_ASKED_PAUSE_SECONDS = 600.0  # that a target may ask for
MOST_CHAINS = 6000  # noted one by one for retention: that many take at most half of what its file may have


class NotDeliveredError(CachegateError):
    """The target did not take what it was given: it is tried again.

    `is_paused`: by a rule of ours (memory, dead letters), and not by a failure of the target.
    """

    def __init__(self, why: str, *, pause_seconds: float | None = None, is_paused: bool = False) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds
        self.is_paused = is_paused


class HandedPage(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a page that was handed over."""

    refused: int = 0  # records that the target refused for good
    goes_on_at: Cursor | None = None  # elsewhere than behind the page


class DeliveryTarget(Protocol):
    """Where records are delivered to. It belongs to one thread, and bounds each call in time."""

    async def deliver(self, records: Sequence[IndexedRecord], start: Cursor, end: Cursor) -> HandedPage:
        """Hand over records; `start` is in front of them, `end` behind them. Raises `NotDeliveredError`."""

    async def close(self) -> None:
        """Close its connections."""


class DeliveryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is handed over at once."""

    records: int = PAGE_RECORDS
    bytes: int = PAGE_BYTES


class Delivery:
    """The delivery to one consumer, from its start in a process to its end.

    `is_ending` is asked between steps. `now` reads the clock.
    """

    def __init__(
        self,
        folder: Path,
        consumer: Consumer,
        registry: ConsumerRegistry,
        reader: IndexReader,
        target: DeliveryTarget,
        *,
        is_ending: Callable[[], bool],
        now: Callable[[], float],
        limits: DeliveryLimits | None = None,
    ) -> None:
        self._folder = folder
        self._registration = consumer.registration
        self._registry = registry
        self._reader = reader
        self._target = target
        self._is_ending = is_ending
        self._now = now
        self._limits = limits or DeliveryLimits()
        self._cursor = _start_of(consumer, reader)
        self._needs = read_needs(folder).get(consumer.registration.name, Needs())
        self._has = dict(self._needs.has)
        self._has_before = self._needs.has_before
        self._times: dict[str, str] = {}
        self._saved_at = 0.0
        self._is_removed = False
        self._is_changed = True
        self.progress = msgspec.structs.replace(consumer.progress, state="running", error=None)
        self.beat = 0  # rises while the loop goes on

    async def run(self) -> None:
        """Deliver until it is ended or the consumer is removed. Raises what reading raises."""
        try:
            poll = FIRST_POLL_SECONDS
            while not self._ends():
                if await self._deliver_page():
                    poll = FIRST_POLL_SECONDS
                    continue
                self._save_when_due()
                await asyncio.sleep(poll)
                poll = min(2 * poll, LONGEST_POLL_SECONDS)
            if not self._is_removed:
                self._note(state="stopped")
                self._save()
        finally:
            await self._target.close()

    def _ends(self) -> bool:
        self.beat += 1
        return self._is_removed or self._is_ending()

    async def _deliver_page(self) -> bool:
        """Read and hand over one page; False when there is none."""
        if not self._reader.has_more(self._cursor):
            self._note(state="running", lag_records=0, lag_seconds=0.0)
            return False
        page = self._reader.read(self._cursor, self._limits.records, max_bytes=self._limits.bytes)
        if page.removed:
            self._note(missed=self.progress.missed + page.removed)
        if not page.records:
            is_moved = page.cursor != self._cursor
            self._cursor = page.cursor
            return is_moved
        handed = await self._hand_over(page.records, page.cursor)
        if handed is None:
            return True
        self._go_on(page.records, handed, page.cursor, is_at_end=page.is_at_end)
        self._save_when_due()
        return True

    async def _hand_over(self, records: Sequence[IndexedRecord], end: Cursor) -> HandedPage | None:
        """Hand over until it is taken; None when the delivery ends before."""
        pause = FIRST_PAUSE_SECONDS
        while not self._ends():
            try:
                return await self._target.deliver(records, self._cursor, end)
            except NotDeliveredError as failure:
                self._note_failure(failure, records[0])
                asked = failure.pause_seconds
                await self._wait(
                    min(asked, LONGEST_ASKED_PAUSE_SECONDS)
                    if asked is not None
                    else pause * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads retries, no secret
                )
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return None

    async def _wait(self, seconds: float) -> None:
        """Wait, and notice in between when the delivery ends or the consumer is removed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._ends() and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, 0.2))
            self._save_when_due()

    def _go_on(
        self, records: Sequence[IndexedRecord], handed: HandedPage, end: Cursor, *, is_at_end: bool
    ) -> None:
        self._cursor = end if handed.goes_on_at is None else handed.goes_on_at
        last_time = self.progress.last_time
        if handed.goes_on_at is None:
            for one in records:
                record = one.record
                if 0 < record.seq <= MAX_INTEGER:  # forged lines are delivered, and count nothing
                    self._has[record.chain] = max(record.seq, self._has.get(record.chain, 0))
                if microseconds(record.time) is not None:
                    self._times[record.chain] = last_time = record.time
        self._note(
            state="running",
            error=None,
            delivered=self.progress.delivered + (len(records) if handed.goes_on_at is None else 0),
            refused=self.progress.refused + handed.refused,
            last_time=last_time,
            lag_records=0 if is_at_end else self._waiting(),
            lag_seconds=0.0 if is_at_end else self._age(records[-1]),
        )

    def _note_failure(self, failure: NotDeliveredError, oldest: IndexedRecord) -> None:
        self._note(
            state="paused" if failure.is_paused else "failing",
            error=str(failure),
            failures=self.progress.failures + (not failure.is_paused),
            lag_records=self._waiting(),
            lag_seconds=self._age(oldest),
        )

    def _waiting(self) -> int:
        end = self._reader.end()
        return max(end.place - self._cursor.place, 1) if end.order == self._cursor.order else 1

    def _age(self, record: IndexedRecord) -> float:
        return age_of(record, self._now())

    def _note(self, **changed: object) -> None:
        replaced = msgspec.structs.replace(self.progress, **changed)
        self._is_changed = self._is_changed or replaced != self.progress
        self.progress = replaced

    def _save_when_due(self) -> None:
        now = self._now()
        if self._is_changed and not 0 <= now - self._saved_at < SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        self._saved_at, self._is_changed = self._now(), False
        self._bound_chains()
        progress = msgspec.structs.replace(
            self.progress, cursor=encode_cursor(self._cursor), updated_at=time_text(self._saved_at)
        )
        needs = Needs(has=self._has, has_before=self._has_before)
        try:
            is_known = self._registry.save(self._registration, progress, needs)
        except Unavailable as failure:  # a full disk: deliver on; after a kill, more comes twice
            self.progress = msgspec.structs.replace(self.progress, error=str(failure))
            return
        self._is_removed = not is_known

    def _bound_chains(self) -> None:
        """Forget chains that are no longer there; of too many, those that had a record longest ago.

        For these, retention goes by time instead: all records up to the newest of theirs count as delivered,
        which they are, as thousands of chains had records delivered since.
        """
        if len(self._has) <= MOST_CHAINS:
            return
        there = group_segments(self._folder.iterdir())
        self._has = {chain: seq for chain, seq in self._has.items() if chain in there}
        surplus = len(self._has) - MOST_CHAINS // 2
        if surplus > 0:
            forgotten = sorted(self._has, key=self._last_time)[:surplus]
            behind = self._last_time(forgotten[-1]) + 1e-5
            self._has_before = max(self._has_before, time_text(behind))
            for chain in forgotten:
                del self._has[chain]
        self._times = {chain: at for chain, at in self._times.items() if chain in self._has}

    def _last_time(self, chain: str) -> float:
        """The time of the last record of a chain that was delivered, as far as this process knows it."""
        known = self._times.get(chain)
        return (chain_started(chain) or 0.0) if known is None else datetime.fromisoformat(known).timestamp()


def age_of(record: IndexedRecord, now: float) -> float:
    """How old a record is, in seconds; 0 when its time is not one of ours."""
    written = microseconds(record.record.time)
    return 0.0 if written is None else max(now - written / 1e6, 0.0)


def _start_of(consumer: Consumer, reader: IndexReader) -> Cursor:
    """Where a consumer goes on. A cursor that does not parse is the start of the log: twice, not never."""
    if consumer.cursor is not None:
        try:
            return parse_cursor(consumer.cursor)
        except ValueError:
            pass
    return reader.start()
