"""Byte ranges, by RFC 9110, section 14: which spans of a file a Range field asks for.

Ranges that overlap or touch become one, and stand where the first of them stood (15.3.7.2). A field
that is not understood is ignored as a whole, as is one that asks for more pieces than any client
has a use for: the answer is the whole file then, which costs us least.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RANGES = 100  # after coalescing; a hundred parts of a few bytes each cost more than they carry
MAX_FIELD_BYTES = 4096  # a hundred ranges of a file of terabytes fit; bounds the work for one request
MAX_DIGITS = 64  # of one position, which may lie far behind the end; Python may be told to read few more

_UNIT = re.compile(rb"bytes=(?![ \t])", re.IGNORECASE)  # 14.1: range units are case-insensitive
_RANGE = re.compile(rb"([0-9]{0,%d})-([0-9]{0,%d})" % (MAX_DIGITS, MAX_DIGITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a file."""

    offset: int
    count: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.count

    def content_range(self, size: int) -> bytes:
        """How a Content-Range field states it (14.4)."""
        return b"bytes %d-%d/%d" % (self.offset, self.end - 1, size)


def unsatisfied_range(size: int) -> bytes:
    """What Content-Range says beside a 416: the length that ranges have to lie within (15.5.17)."""
    return b"bytes */%d" % size


def find_ranges(lines: Sequence[bytes], size: int) -> tuple[Span, ...] | None:
    """The spans to send; empty when none lies within the file, None when the field is to be ignored.

    It is ignored when it does not parse (14.2), has another unit, came twice, asks for too much, or
    the file is empty: no Content-Range could name a part of nothing.
    """
    if len(lines) != 1 or len(lines[0]) > MAX_FIELD_BYTES or size == 0:
        return None
    unit = _UNIT.match(lines[0])
    members = [] if unit is None else lines[0][unit.end() :].split(b",")
    asked = [member.strip(b" \t") for member in members]
    spans: list[Span] = []
    for raw_range in filter(None, asked):
        parsed = _RANGE.fullmatch(raw_range)
        if parsed is None or not _is_valid(parsed[1], parsed[2]):
            return None
        span = _find_span(parsed[1], parsed[2], size)
        if span is not None:
            spans.append(span)
    if not any(asked):
        return None
    spans = coalesce(spans)
    return tuple(spans) if len(spans) <= MAX_RANGES else None


def _is_valid(first: bytes, last: bytes) -> bool:
    """14.1.1: a first position, a last one not before it; or a length from the end alone."""
    if not first:
        return bool(last)
    return not last or int(last) >= int(first)


def _find_span(first: bytes, last: bytes, size: int) -> Span | None:
    """The part of the file that a valid range covers, if it covers any (14.1.2)."""
    if not first:
        count = min(int(last), size)
        return Span(offset=size - count, count=count) if count else None
    offset = int(first)
    end = min(int(last) + 1, size) if last else size
    return Span(offset=offset, count=end - offset) if offset < size else None


def coalesce(spans: Sequence[Span]) -> list[Span]:
    """The same bytes in the fewest spans, each where the first of its own was asked for."""
    merged: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda one: one[1].offset):
        if merged and span.offset <= merged[-1][1].end:
            first, before = merged.pop()
            count = max(before.end, span.end) - before.offset
            merged.append((min(first, place), Span(offset=before.offset, count=count)))
        else:
            merged.append((place, span))
    return [span for _, span in sorted(merged, key=lambda one: one[0])]
