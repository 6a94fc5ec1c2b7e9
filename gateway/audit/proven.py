"""Find the position up to which signed heads prove a chain, to mark each record as proven or not.

A record is not proven when it follows the last signed head of its chain, or when its chain has none. The
mark depends on the position alone: whether the records before a head are those that were written is checked
by `verify`, which reads all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.audit.folder import HEADS_NAME
from gateway.audit.heads_evidence import verify_head
from gateway.audit.heads_file import parse_listed
from gateway.audit.last_head import linked_records, read_tail
from gateway.audit.reading import lines_backward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.last_head import ChainEnd
    from gateway.audit.record import HeadRecord

_ABANDONED = b'"state":"abandoned"'


class ProvenEnd(NamedTuple):
    """The position up to which a chain is proven: a segment number, and an offset in that segment."""

    segment: int
    offset: int


NOTHING_PROVEN = ProvenEnd(0, 0)


class ProvenEnds:
    """The proven ends of the chains of one folder, by heads that these keys signed."""

    def __init__(self, folder: Path, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._heads_path = folder / HEADS_NAME
        self._keys = keys
        self._size = -1
        self._abandoned: dict[str, HeadRecord] = {}

    def find(self, chain: str, segments: Sequence[tuple[int, Path]]) -> ProvenEnd:
        """The end of the proven part of a chain now. Raises `Unavailable` when a file cannot be read."""
        tail = read_tail(chain, segments, self._keys)
        if tail is None:
            return NOTHING_PROVEN
        end = ProvenEnd(tail.head_segment, tail.head_end)
        if not tail.lines:
            return end
        self._read_abandoned()
        abandoned = self._abandoned.get(chain)
        return end if abandoned is None else _end_of_abandoned(tail, abandoned) or end

    def _read_abandoned(self) -> None:
        """Read abandoned heads, which are only in `heads.jsonl`; again when that file has grown."""
        try:
            size = self._heads_path.stat().st_size
        except OSError:
            return
        if size == self._size:
            return
        self._size = size
        for _, line in lines_backward(self._heads_path):
            if _ABANDONED not in line:
                continue
            try:
                head = verify_head(bytes(parse_listed(line).head) + b"\n", self._keys)
            except ValueError:
                continue
            if head.state == "abandoned":
                self._abandoned[head.chain] = head


def _end_of_abandoned(tail: ChainEnd, abandoned: HeadRecord) -> ProvenEnd | None:
    """The end of the lines after a chain's last head that its abandoned head proves."""
    for place, link, digest in linked_records(tail):
        if (link.seq, digest) == (abandoned.seq - 1, abandoned.prev):
            return ProvenEnd(place.segment, place.end)
    return None
