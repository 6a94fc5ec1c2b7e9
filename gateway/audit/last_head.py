"""Read a chain backward from its end: its last signed head, and the lines after that head.

The number of records after the last head of an honest writer is bounded (`promise.py`), so the end of the
last segments is enough, however long the chain is. Nothing before the head is read; `verify` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.audit.heads_evidence import verify_head
from gateway.audit.promise import PROMISED_RECORDS
from gateway.audit.reading import lines_backward
from gateway.audit.record import hash_of, parse_link, split_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.record import HeadRecord, Link

MOST_LINES = 2 * PROMISED_RECORDS + 1  # the head, and the records earlier releases could leave after it
MOST_BYTES = 64 << 20  # a record takes about a kilobyte
_HEAD_MARK = b'"kind":"head"'


class EndingLine(NamedTuple):
    """A line, the number of its segment, and the offset at which it ends."""

    segment: int
    end: int
    line: bytes


class ChainEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The last head of a chain, the position at which its line ends, and the whole lines after it.

    `segment` is the number of the chain's last segment.
    """

    head: HeadRecord
    head_segment: int
    head_end: int
    lines: tuple[EndingLine, ...]
    segment: int


def read_tail(
    chain: str, segments: Sequence[tuple[int, Path]], keys: Mapping[str, Ed25519PublicKey]
) -> ChainEnd | None:
    """The end of a chain, from its last head that is signed by one of these keys.

    None when there is no such head within the bounds. Raises `Unavailable` when a file cannot be read.
    """
    lines: list[EndingLine] = []
    left = MOST_BYTES
    for number, path in reversed(segments):
        for end, line in lines_backward(path):
            left -= len(line)
            if _HEAD_MARK in line and (head := _find_head(line, keys)) and head.chain == chain:
                lines.reverse()
                return ChainEnd(
                    head=head,
                    head_segment=number,
                    head_end=end,
                    lines=tuple(lines),
                    segment=segments[-1][0],
                )
            if len(lines) >= MOST_LINES or left < 0:
                return None
            lines.append(EndingLine(number, end, line))
    return None


def linked_records(tail: ChainEnd) -> Iterator[tuple[EndingLine, Link, str]]:
    """The records after the head that are linked to it one by one, with their hashes; stops at a bad one."""
    seq, prev = tail.head.seq, tail.head.hash
    for place in tail.lines:
        try:
            covered, claimed_hash = split_hash(place.line[:-1])
            link = parse_link(place.line)
        except ValueError:
            return
        if hash_of(covered) != claimed_hash:
            return
        if (link.chain, link.seq, link.prev) != (tail.head.chain, seq + 1, prev):
            return
        seq, prev = link.seq, claimed_hash
        yield place, link, claimed_hash


def _find_head(line: bytes, keys: Mapping[str, Ed25519PublicKey]) -> HeadRecord | None:
    try:
        return verify_head(line, keys)
    except ValueError:
        return None
