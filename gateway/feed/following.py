"""Follows the newest records of the log, once for all readers of a worker that wait for them.

A reader that has read everything waits here. While anybody waits, one task looks at the index every few
milliseconds, in a thread, reads what is new once, and wakes those whom a new record concerns. So what a
hundred waiting readers cost is one reading of each record, and a comparison for each of them. The newest
records are held in memory, within bounds; a reader that is further behind reads from the disk.

Reading the log is itself recorded, and nobody is woken by the record of its own reading: two readers that
wait, on an idle gateway, would otherwise keep each other and themselves busy for ever.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from gateway.audit.events import Query
from gateway.audit.index import IndexPage
from gateway.audit.record import DecisionRecord, OutcomeRecord
from gateway.audit.timeline import parse_record_id
from gateway.model.access import Action
from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from gateway.audit.index import Cursor, IndexedRecord, IndexReader
    from gateway.feed.selection import FeedReader

LOOK_SECONDS = 0.005  # between looks while records come
IDLE_LOOK_SECONDS = 0.02  # while none does
IDLE_AFTER_LOOKS = 40
HELD_RECORDS = 8192
HELD_BYTES = 8 << 20  # of lines
READ_RECORDS = 2000  # at a look
KNOWN_READINGS = 4096
LOOKUP_SECONDS = 2.0  # around the time in a decision's id, in which its record is looked for


class HeldRecord:
    """A record of the newest, with what readers of all of the log get of it."""

    __slots__ = ("item", "sealed")

    def __init__(self, item: IndexedRecord) -> None:
        self.item = item
        self.sealed: str | None = None  # its cursor, sealed for readers of all of the log


class NewestRecords:
    """The newest records of a node, as one worker follows them. Belongs to one event loop."""

    def __init__(
        self,
        reader: IndexReader,
        threads: Executor,
        *,
        look_seconds: float = LOOK_SECONDS,
        on_failure: Callable[[Unavailable], None] = lambda _: None,
    ) -> None:
        """`reader` is used by this alone: its calls wait for each other. `threads` are those it reads in."""
        self._reader = reader
        self._threads = threads
        self._look_seconds = look_seconds
        self._on_failure = on_failure
        self._held: deque[HeldRecord] = deque()
        self._held_bytes = 0
        self._first = 0  # the number of the first held record, counted from the start of the worker
        self._numbers: dict[tuple[str, int], int] = {}  # of the record behind a place of the order
        self._cursor: Cursor | None = None  # how far was read
        self._waiting = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._readings: OrderedDict[str, bool] = OrderedDict()
        self.is_closed = False

    @property
    def end(self) -> int:
        """The number behind the newest record that is held."""
        return self._first + len(self._held)

    def find_number(self, cursor: Cursor) -> int | None:
        """The number of the first record behind this cursor; None where that is not held."""
        return self._numbers.get((cursor.order, cursor.place))

    def records_from(self, number: int, most: int = HELD_RECORDS) -> list[HeldRecord] | None:
        """The held records from this number on; None where the first of them are no longer held."""
        if number < self._first:
            return None
        return list(islice(self._held, number - self._first, number - self._first + most))

    async def begin(self) -> None:
        """Follow, until `leave` was called as often. Returns once it is known where the log ends now."""
        self._waiting += 1
        if self._task is None or self._task.done():
            self._forget()
            self._task = asyncio.create_task(self._follow())
        if self._cursor is None:
            try:
                await self._until_changed(None)
            except BaseException:
                self.leave()
                raise

    def leave(self) -> None:
        """Follow no longer for the one that began. With the last one the looking ends."""
        self._waiting -= 1
        if self._waiting == 0 and self._task is not None:
            self._task.cancel()
            self._task = None
            self._forget()

    async def wait_behind(self, number: int, seconds: float) -> None:
        """Return once there are records from this number on, or the time is over, or the worker stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._until_changed(number)

    async def _until_changed(self, number: int | None) -> None:
        while not self.is_closed and (self._cursor is None if number is None else self.end <= number):
            changed = self._changed
            await changed.wait()

    def close(self) -> None:
        """Wake everybody: the worker stops."""
        self.is_closed = True
        self._wake()

    async def is_news(self, records: Sequence[IndexedRecord], reader: FeedReader) -> bool:
        """Whether one of these records is about something else than this reader's own reading."""
        unsure: list[OutcomeRecord] = []
        for item in records:
            record = item.record
            if _is_reading(record, reader):
                continue
            if isinstance(record, OutcomeRecord) and record.key_id == reader.key_id:
                unsure.append(record)
                continue
            return True
        for record in unsure:
            if not await self._is_of_reading(record.decision_id):
                return True
        return False

    async def _is_of_reading(self, decision_id: str) -> bool:
        """Whether a decision was about reading the log. One that is not known is looked for in the index."""
        known = self._readings.get(decision_id)
        if known is None:
            loop = asyncio.get_running_loop()
            known = await loop.run_in_executor(self._threads, self._look_up, decision_id)
            self._note_reading(decision_id, is_reading=known)
        return known

    def _look_up(self, decision_id: str) -> bool:
        try:
            moment = parse_record_id(decision_id)
        except ValueError:
            return False
        query = Query(
            record_id=decision_id,
            kind="decision",
            since=moment - LOOKUP_SECONDS,
            until=moment + LOOKUP_SECONDS,
        )
        found = next(iter(self._reader.search(query, 1)), None)
        return found is not None and _is_of_log(found.record)

    def _note_reading(self, decision_id: str, *, is_reading: bool) -> None:
        self._readings[decision_id] = is_reading
        if len(self._readings) > KNOWN_READINGS:
            self._readings.popitem(last=False)

    async def _follow(self) -> None:
        """Look for new records, for as long as anybody waits."""
        loop = asyncio.get_running_loop()
        idle = 0
        while True:
            try:
                page = await loop.run_in_executor(self._threads, self._look)
            except OSError as error:
                why = f"the log cannot be followed ({error.strerror})"
                self._on_failure(Unavailable("audit", why, Reason.NO_AUDIT))
                await asyncio.sleep(1.0)
                continue
            if page is not None:
                self._take(page)
            idle = 0 if page is not None and page.records else idle + 1
            if page is None or page.is_at_end:
                seconds = self._look_seconds
                await asyncio.sleep(max(seconds, IDLE_LOOK_SECONDS) if idle > IDLE_AFTER_LOOKS else seconds)

    def _look(self) -> IndexPage | None:
        """In a thread: what is new, parsed; None where nothing is."""
        if self._cursor is None:
            return IndexPage(records=[], cursor=self._reader.end(), is_at_end=True, removed=0)
        if not self._reader.has_more(self._cursor):
            return None
        return self._reader.read(self._cursor, READ_RECORDS, None, HELD_BYTES // 4)

    def _take(self, page: IndexPage) -> None:
        begins = self._cursor
        if begins is None or page.removed or page.cursor.order != begins.order:
            # What comes next does not follow what is held: whoever waits reads from the disk.
            self._drop(len(self._held))
            self._numbers.clear()
            self._first += 1
        for item in page.records:
            self._held.append(HeldRecord(item))
            self._held_bytes += len(item.line)
            self._numbers[item.cursor.order, item.cursor.place] = self.end
            record = item.record
            if _is_of_log(record):
                self._note_reading(record.id, is_reading=True)
        # Lines that are no records have places, too: behind them is where the next record is.
        self._numbers[page.cursor.order, page.cursor.place] = self.end
        self._cursor = page.cursor
        while self._held and (len(self._held) > HELD_RECORDS or self._held_bytes > HELD_BYTES):
            self._drop(1)
        if page.records or begins is None or page.removed:
            self._wake()

    def _drop(self, count: int) -> None:
        for _ in range(count):
            item = self._held.popleft().item
            self._held_bytes -= len(item.line)
            self._first += 1
        if len(self._numbers) > 2 * HELD_RECORDS + READ_RECORDS:
            kept = {place: number for place, number in self._numbers.items() if number >= self._first}
            self._numbers = kept

    def _forget(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        self._first += 1 << 32  # no number of before is one of now
        self._numbers.clear()
        self._cursor = None

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is_of_log(record: object) -> bool:
    return (
        isinstance(record, DecisionRecord)
        and record.decision == "allow"
        and record.action == Action.AUDIT_READ.value
    )


def _is_reading(record: object, reader: FeedReader) -> bool:
    """Whether a record is the decision about this reader's own reading."""
    return isinstance(record, DecisionRecord) and _is_of_log(record) and record.key_id == reader.key_id
