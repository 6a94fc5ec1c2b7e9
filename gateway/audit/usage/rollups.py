"""Keep the counts of each day beside the index, up to date with it: a question reads some small files.

    <audit>/index/usage/state          up to where the order is counted, and allows without an outcome
    <audit>/index/usage/2026-11-30     the counts of a day

The process that holds the index's lock writes them (`UsageKeeper.follow`); any process reads them
(`UsageRollups`), and counts what came since by itself. Each day says up to which place it is counted, so a
writer that was killed between two files counts nothing twice. When the order was made anew, so are the
counts: from the records that are there. Counts outlive the records that retention removes, for `MAX_DAYS`.

Whoever can write to the folder can write here: what does not parse counts as absent.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.audit.folder import FILE_MODE, FOLDER_MODE
from gateway.audit.index.cursor import encode_cursor, parse_cursor
from gateway.audit.index.journal import INDEX_NAME
from gateway.audit.usage.tally import MAX_PENDING, PendingUse, UsageDay, UsageTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Final

    from gateway.audit.index import Cursor, IndexReader

USAGE_NAME: Final = "usage"
STATE_NAME: Final = "state"
VERSION: Final = 1
MAX_DAYS: Final = 400
MAX_FILE_BYTES: Final = 16 << 20
OPEN_DAYS: Final = 8  # in the writer's memory
HELD_BYTES: Final = 4 << 20  # of files, in a reader's; a day of most tenants has some kilobytes
SAVE_SECONDS: Final = 1.0
SAVE_RECORDS: Final = 1000
PAGE_RECORDS: Final = 1000
MAX_TAIL_RECORDS: Final = 6000  # that a reader counts by itself: some 60 ms

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UsageState(msgspec.Struct, array_like=True, frozen=True):
    """How far the counts go."""

    version: int = VERSION
    cursor: str = ""
    pending: dict[str, PendingUse] = {}
    order: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode_day = msgspec.msgpack.Decoder(UsageDay).decode
_decode_state = msgspec.msgpack.Decoder(UsageState).decode


def usage_folder(folder: Path) -> Path:
    """Where the counts of an audit folder stand."""
    return folder / INDEX_NAME / USAGE_NAME


class _KeptTally(UsageTally):
    """Counts on from what is kept. `is_kept` days are written when they leave memory, by `save_day`."""

    def __init__(self, folder: Path, order: str, on_leave: Callable[[UsageDay], None] | None) -> None:
        super().__init__()
        self._folder = usage_folder(folder)
        self._order = order
        self._on_leave = on_leave
        self.touched: set[str] = set()

    def day(self, name: str) -> UsageDay:
        """The counts of a day, from its file if it is not in memory."""
        self.touched.add(name)
        found = self.days.get(name)
        if found is not None:
            return found
        if self._on_leave is not None and len(self.days) >= OPEN_DAYS:
            self._on_leave(self.days.pop(next(iter(self.days))))
        found = load_day(self._folder, name, self._order) or UsageDay(name)
        self.days[name] = found
        return found


class UsageKeeper:
    """Writes the counts. One process at a time: that which holds the index's lock."""

    def __init__(self, folder: Path, reader: IndexReader) -> None:
        self._folder = usage_folder(folder)
        self._reader = reader
        self._order = reader.order_id()
        self._cursor = reader.start()
        self._tally = _KeptTally(folder, self._order, self._save_day)
        self._counted = 0
        self._saved_at = 0.0
        self._begin()

    def _begin(self) -> None:
        state = _load_state(self._folder)
        cursor = _cursor_of(state)
        if cursor is not None and state.order == self._order and self._is_ahead_of_days(cursor):
            self._cursor = cursor
            self._tally.pending = OrderedDict(state.pending)
            return
        # Another order, or none: count anew. The state goes first, so that no reader takes old days for new.
        with suppress(FileNotFoundError):
            (self._folder / STATE_NAME).unlink()
        for path in _days_in(self._folder):
            path.unlink(missing_ok=True)

    def close(self, now: float) -> None:
        """Write what is counted, if that can be written; else it is counted again."""
        with suppress(OSError):
            if self._counted:
                self.save(now)
        self._reader.close()

    def _is_ahead_of_days(self, cursor: Cursor) -> bool:
        """Whether all that is counted is in the order where it was.

        Days are written before the state, so a day of a writer that was killed may be counted further than
        that says. Then its places have to be there still, too.
        """
        days = (load_day(self._folder, path.name, self._order) for path in _days_in(self._folder))
        place = max((day.place for day in days if day is not None), default=0)
        return self._reader.counts_still(replace(cursor, place=max(cursor.place, place)))

    def follow(self, now: float, limit: int = SAVE_RECORDS) -> int:
        """Count what is new in the order, at most so many records; how many it was. Raises `OSError`."""
        counted = 0
        while counted < limit:
            page = self._reader.read(self._cursor, PAGE_RECORDS)
            if self._reader.order_id() != self._order:
                self._order = self._reader.order_id()
                self._cursor = self._reader.start()
                self._tally = _KeptTally(self._folder.parents[1], self._order, self._save_day)
                self._begin()
                return counted
            for item in page.records:
                self._tally.take(item.record, self._order, item.cursor.place)
            counted += len(page.records)
            self._cursor = page.cursor
            if page.is_at_end:
                break
        self._counted += counted
        if self._counted >= SAVE_RECORDS or (self._counted and now - self._saved_at >= SAVE_SECONDS):
            self.save(now)
        return counted

    def save(self, now: float) -> None:
        """Write what has changed: the days first, then how far they go. Raises `OSError`."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for name in sorted(self._tally.touched):
            if name in self._tally.days:
                self._save_day(self._tally.days[name])
        pending = dict(self._tally.pending)
        self._write(STATE_NAME, UsageState(VERSION, encode_cursor(self._cursor), pending, self._order))
        for path in _days_in(self._folder)[:-MAX_DAYS]:
            path.unlink(missing_ok=True)
        self._tally.touched.clear()
        self._counted, self._saved_at = 0, now

    def _save_day(self, day: UsageDay) -> None:
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._write(day.day, day)

    def _write(self, name: str, value: msgspec.Struct) -> None:
        path = self._folder / name
        partial = path.with_name(f"{name}.partial")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, FILE_MODE), "wb") as file:
            file.write(_encode(value))
        partial.replace(path)


class CountedDays(msgspec.Struct, frozen=True):
    """The counts of some days, and whether every record that is in order is in them."""

    days: Iterator[UsageDay]  # in order, each loaded when it comes
    is_current: bool


class UsageRollups:
    """Reads the counts. Threads may share it."""

    def __init__(self, folder: Path, reader: IndexReader) -> None:
        self._audit_folder = folder
        self._folder = usage_folder(folder)
        self._reader = reader
        self._held: OrderedDict[str, tuple[tuple[int, int, int], UsageDay]] = OrderedDict()
        self._mutex = threading.Lock()

    def days(self, since: str | None = None, until: str | None = None) -> CountedDays:
        """The counts of the days from `since` to `until`, both included. Raises `OSError`."""
        state = _load_state(self._folder)
        cursor = _cursor_of(state)
        order = self._reader.order_id()
        tally = _KeptTally(self._audit_folder, order, None)
        tally.pending = OrderedDict(state.pending)
        is_kept = cursor is not None and state.order == order and self._reader.counts_still(cursor)
        if cursor is None or not is_kept:
            tally.pending.clear()
            cursor = self._reader.start()
        is_current = self._count_tail(tally, cursor, order)
        names = [path.name for path in _days_in(self._folder)] if is_kept else []
        wanted = [
            name
            for name in sorted({*names, *tally.days})
            if (since is None or name >= since) and (until is None or name <= until)
        ]
        days = (tally.days.get(name) or self._load(name, order) for name in wanted)
        return CountedDays((day for day in days if day is not None), is_current)

    def _count_tail(self, tally: UsageTally, cursor: Cursor, order: str) -> bool:
        counted = 0
        while counted < MAX_TAIL_RECORDS:
            page = self._reader.read(cursor, PAGE_RECORDS)
            for item in page.records:
                tally.take(item.record, order, item.cursor.place)
            counted += len(page.records)
            cursor = page.cursor
            if page.is_at_end:
                return True
        return False

    def _load(self, name: str, order: str) -> UsageDay | None:
        """A day that nothing was added to since it was written, from memory if its file is the same."""
        try:
            status = (self._folder / name).lstat()
        except OSError:
            return None
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._mutex:
            held = self._held.get(name)
            if held is not None and held[0] == state:
                self._held.move_to_end(name)
                return held[1] if held[1].order == order else None
        day = load_day(self._folder, name, order)
        if day is not None:
            with self._mutex:
                self._held[name] = (state, day)
                while sum(one[0][1] for one in self._held.values()) > HELD_BYTES:
                    self._held.popitem(last=False)
        return day


def load_day(folder: Path, name: str, order: str) -> UsageDay | None:
    """The counts of a day in this order; None where there are none that can be read."""
    raw = _read(folder / name)
    if raw is None:
        return None
    try:
        day = _decode_day(raw)
    except msgspec.DecodeError:
        return None
    return day if (day.day, day.order) == (name, order) else None


def _load_state(folder: Path) -> UsageState:
    raw = _read(folder / STATE_NAME)
    if raw is not None:
        with suppress(msgspec.DecodeError):
            state = _decode_state(raw)
            if state.version == VERSION and len(state.pending) <= MAX_PENDING:
                return state
    return UsageState()


def _cursor_of(state: UsageState) -> Cursor | None:
    try:
        return parse_cursor(state.cursor)
    except ValueError:
        return None


def _days_in(folder: Path) -> list[Path]:
    """The files of days, in order."""
    try:
        return sorted(path for path in folder.iterdir() if _DAY.fullmatch(path.name))
    except OSError:
        return []


def _read(path: Path) -> bytes | None:
    """A small file of ours; None where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > MAX_FILE_BYTES:
            return None
        try:
            return file.read(MAX_FILE_BYTES)
        except OSError:
            return None
