"""One chain, from its first line to its last, in constant memory: the first bad record is named.

Each line must have the hash it carries, continue the count, and follow the record before it; each
head must be signed over exactly this past; and the newest head in `heads.jsonl` must agree, which
is what shows a rewritten or a cut chain. The walk stops at the first bad record: what follows it
cannot be told apart from what was made up. A missing segment does not stop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.audit.folder import chain_started, segment_name
from gateway.audit.record import GENESIS, MAX_LINE_BYTES, HeadRecord, Link, hash_of, parse_link, split_hash
from gateway.audit.report import ChainReport, Damage, Fault
from gateway.audit.timeline import time_text
from gateway.audit.witness import UnknownSignerError, read_lines, verify_head

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Finding = tuple[Damage, str]


class Walk:
    """The state of a walk: the last good record, and what was learnt on the way."""

    def __init__(
        self, chain: str, keys: Mapping[str, Ed25519PublicKey], witness_head: HeadRecord | None
    ) -> None:
        self.named: set[str] = set()  # chains that this one's heads name as live
        self.head_before_last_seq = 0
        self._chain = chain
        self._keys = keys
        self._witness_head = witness_head
        self._seq = 0
        self._hash = GENESIS
        self._time = time_text(chain_started(chain) or 0)
        self._missing_since: str | None = None
        self._records = 0
        self._last_head_seq = 0
        self._proven_seq = 0
        self._unproven = 0
        self._is_closed = False
        self._is_after_gap = False
        self._torn_tail: str | None = None
        self._place = ("", 1)

    def run(self, segments: Sequence[tuple[int, Path]]) -> ChainReport:
        """Walk through the segments, given in order."""
        missing: list[str] = []
        fault: Fault | None = None
        expected = 1
        for number, path in segments:
            missing += self._missing(expected, number)
            self._is_after_gap = number > expected
            expected = number + 1
            fault = self._walk_segment(path, is_last=path == segments[-1][1])
            if fault is not None:
                break
        head = self._witness_head
        if fault is None and head is not None:
            missing += self._missing(expected, head.segment + 1)
            fault = self._truncation(head)
        return ChainReport(
            chain=self._chain,
            records=self._records,
            last_seq=self._seq,
            proven_seq=self._proven_seq,
            unproven=self._unproven,
            is_closed=self._is_closed,
            missing_segments=tuple(missing),
            missing_since=self._missing_since,
            torn_tail=self._torn_tail,
            fault=fault,
        )

    def _missing(self, expected: int, found: int) -> list[str]:
        """The segments between the one that was expected and the one that is there."""
        gap = [segment_name(self._chain, number) for number in range(expected, found)]
        if gap and self._missing_since is None:
            self._missing_since = self._time
        return gap

    def _walk_segment(self, path: Path, *, is_last: bool) -> Fault | None:
        number = 0
        for number, line in read_lines(path):
            if is_last and not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES and not self._is_closed:
                self._torn_tail = path.name
                self._place = (path.name, number)
                return None
            finding = self._judge(line)
            if finding is not None:
                damage, why = finding
                return Fault(damage=damage, file=path.name, line=number, seq=self._seq + 1, why=why)
        self._place = (path.name, number + 1)
        return None

    def _judge(self, line: bytes) -> Finding | None:
        if self._is_closed:
            return Damage.AFTER_CLOSE, "it stands after the head that closed the chain"
        if not line.endswith(b"\n"):
            return Damage.MALFORMED, "the line does not end where a record does"
        try:
            covered, claimed_hash = split_hash(line[:-1])
            true_hash = hash_of(covered)
            if claimed_hash != true_hash:
                return Damage.EDITED, "its bytes do not have the hash it carries"
            link = parse_link(line)
        except ValueError as error:
            return Damage.MALFORMED, f"not a record: {error}"
        finding = self._misplaced(link) or self._contradicted(link, true_hash)
        if finding is None and link.kind == "head":
            finding = self._head(line)
        if finding is None:
            self._accept(link, true_hash)
        return finding

    def _misplaced(self, link: Link) -> Finding | None:
        """Why a record with a good hash does not belong here."""
        if link.chain != self._chain:
            return Damage.FOREIGN, f"a record of the chain {link.chain}"
        if self._is_after_gap and link.seq > self._seq:
            return None
        expected = self._seq + 1
        if link.seq > expected:
            return Damage.DELETED, f"records {expected} to {link.seq - 1} are missing in front of it"
        if link.seq < expected:
            return Damage.REORDERED, f"record {link.seq} stands where {expected} belongs"
        if link.prev != self._hash:
            return Damage.RELINKED, f"it was written after another record {self._seq} than the one here"
        return None

    def _contradicted(self, link: Link, true_hash: str) -> Finding | None:
        """What the newest head of `heads.jsonl` says against it."""
        head = self._witness_head
        if head is None:
            return None
        if head.state != "abandoned" and link.seq == head.seq and true_hash != head.hash:
            return Damage.REWRITTEN, "heads.jsonl has another signed head in this place"
        if link.seq == head.seq - 1 and true_hash != head.prev:
            return Damage.REWRITTEN, f"the head signed at {head.time} states another hash for it"
        return None

    def _head(self, line: bytes) -> Finding | None:
        try:
            head = verify_head(line, self._keys)
        except UnknownSignerError as error:
            return Damage.UNKNOWN_SIGNER, str(error)
        except ValueError as error:
            return Damage.BAD_SIGNATURE, f"{error}; it, or records since the head before it, were rewritten"
        self.named.update(head.live)
        self.head_before_last_seq, self._last_head_seq = self._last_head_seq, head.seq
        self._is_closed = head.state == "closed"
        return None

    def _accept(self, link: Link, true_hash: str) -> None:
        self._is_after_gap = False
        self._seq, self._hash, self._time = link.seq, true_hash, link.time
        self._records += 1
        self._unproven += 1
        head = self._witness_head
        if self._last_head_seq == link.seq or (head is not None and link.seq == head.seq - 1):
            self._proven_seq, self._unproven = link.seq, 0

    def _truncation(self, head: HeadRecord) -> Fault | None:
        vouched_seq = head.seq - 1 if head.state == "abandoned" else head.seq
        if self._seq >= vouched_seq:
            return None
        file, line = self._place
        why = f"the head signed at {head.time} vouches for records up to {vouched_seq}"
        return Fault(damage=Damage.TRUNCATED, file=file, line=line, seq=self._seq + 1, why=why)
