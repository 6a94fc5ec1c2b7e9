"""Format record times and make record ids, both so that text order is the order of time.

A record id is a UUIDv7 (RFC 9562): 48 bits of milliseconds, a counter within the millisecond, and
60 random bits. Ids of one process ascend, so an id tells a reader where to search; they name records
and grant no access. Times are RFC 3339 in UTC with microseconds, always 27 characters. No clock is read
here: the caller passes the time.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOISES = 256
_COUNTER_LIMIT = 0x1000  # twelve bits
_TIME_CHARACTERS = 27
_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_REMEMBERED_SECONDS = 1 << 12


class Timestamps:
    """Formats times; remembers the text of the current second, because formatting a date is slow."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second: int | None = None
        self._text = ""

    def text(self, now: float) -> str:
        """RFC 3339 in UTC with microseconds."""
        second = int(now)
        if second != self._second:
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second
        return f"{self._text}.{int((now - second) * 1_000_000):06d}Z"


class RecordIds:
    """Makes ascending UUIDv7s, even when the clock is set back."""

    __slots__ = ("_counter", "_milliseconds", "_noise", "_prefix")

    def __init__(self) -> None:
        self._noise: Iterator[str] = iter(())
        self._milliseconds = -1
        self._counter = 0
        self._prefix = ""

    def next(self, now: float) -> str:
        """A new id, greater than every one before it."""
        return self.take(now, 1)[0]

    def take(self, now: float, count: int) -> list[str]:
        """New ids, each greater than every one before it."""
        milliseconds = int(now * 1000)
        if milliseconds > self._milliseconds:
            self._start_millisecond(milliseconds)
        taken = []
        for _ in range(count):
            if self._counter == _COUNTER_LIMIT:
                self._start_millisecond(self._milliseconds + 1)
            noise = next(self._noise, None) or self._fresh_noise()
            taken.append(f"{self._prefix}{self._counter:03x}-8{noise}")
            self._counter += 1
        return taken

    def _fresh_noise(self) -> str:
        """Fetch random bytes for 256 ids: one system call per record would double the cost of an id."""
        page = os.urandom(8 * _NOISES).hex()
        self._noise = iter(
            [
                f"{page[start : start + 3]}-{page[start + 4 : start + 16]}"
                for start in range(0, 16 * _NOISES, 16)
            ]
        )
        return next(self._noise)

    def _start_millisecond(self, milliseconds: int) -> None:
        self._milliseconds, self._counter = milliseconds, 0
        self._prefix = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7"


def parse_record_id(text: str) -> float:
    """The time at which a record id was made, in seconds. Raises `ValueError` when it is not a record id."""
    value = UUID(text)
    if str(value) != text or value.version != 7:  # noqa: PLR2004 -- the version is the name
        raise ValueError("not a record id: expected a lower-case UUIDv7, as in the Cachegate-Record header")
    return (value.int >> 80) / 1000


def time_text(seconds: float) -> str:
    """Format one time: RFC 3339 in UTC with microseconds."""
    return Timestamps().text(seconds)


def microseconds(time: str) -> int | None:
    """The time of a record since 1970, in microseconds; None for text that is not one of ours."""
    if len(time) != _TIME_CHARACTERS or time[19] != "." or time[26] != "Z":
        return None
    fraction = time[20:26]
    seconds = _seconds(time[:19])
    if seconds is None or not (fraction.isascii() and fraction.isdigit()):
        return None
    return seconds * 1_000_000 + int(fraction)


@lru_cache(_REMEMBERED_SECONDS)
def _seconds(text: str) -> int | None:
    if not (text.isascii() and _SECOND.fullmatch(text)):
        return None
    try:
        moment = datetime.fromisoformat(text + "+00:00").timestamp()
    except ValueError:
        return None
    return int(moment) if moment >= 0 else None
