"""Parses a Range field into byte spans of a file, by RFC 9110, section 14.

Ranges that overlap or touch are merged, at the position of the first of them (15.3.7.2). A field that does
not parse is ignored as a whole, as is one that asks for more ranges than any real client needs: the answer
is then the whole file, which costs us least.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.model.answers import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RANGES = 100  # after merging; more ranges of a few bytes each cost more than they carry
MAX_FIELD_BYTES = 4096  # a hundred ranges of a file of terabytes fit; bounds the work for one request
MAX_DIGITS = 64  # of one position, which may be far beyond the end; Python can be set to parse few more

_UNIT = re.compile(rb"bytes=(?![ \t])", re.IGNORECASE)  # 14.1: range units are case-insensitive
_RANGE = re.compile(rb"([0-9]{0,%d})-([0-9]{0,%d})" % (MAX_DIGITS, MAX_DIGITS))


def unsatisfied_range(size: int) -> bytes:
    """The value of Content-Range for a 416: the length that ranges have to lie within (15.5.17)."""
    return b"bytes */%d" % size


def find_ranges(lines: Sequence[bytes], size: int) -> tuple[Span, ...] | None:
    """The spans to send; empty when none lies within the file, None when the field is to be ignored.

    It is ignored when it does not parse (14.2), has another unit, came twice, asks for too much, or when
    the file is empty: no Content-Range can name a part of an empty file.
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
    if len(spans) > 1:
        spans = coalesce(spans)
    return tuple(spans) if len(spans) <= MAX_RANGES else None


def _is_valid(first: bytes, last: bytes) -> bool:
    """14.1.1: a first position, then perhaps a last one not before it; or the length of a suffix."""
    if not first:
        return bool(last)
    return not last or int(last) >= int(first)


def _find_span(first: bytes, last: bytes, size: int) -> Span | None:
    """The part of the file that a valid range covers, if any (14.1.2)."""
    if not first:
        count = min(int(last), size)
        return Span(offset=size - count, count=count) if count else None
    offset = int(first)
    end = min(int(last) + 1, size) if last else size
    return Span(offset=offset, count=end - offset) if offset < size else None


def coalesce(spans: Sequence[Span]) -> list[Span]:
    """Merge overlapping and touching spans; each result takes the position of its first member."""
    merged: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda one: one[1].offset):
        if merged and span.offset <= merged[-1][1].end:
            first, before = merged.pop()
            count = max(before.end, span.end) - before.offset
            merged.append((min(first, place), Span(offset=before.offset, count=count)))
        else:
            merged.append((place, span))
    return [span for _, span in sorted(merged, key=lambda one: one[0])]
