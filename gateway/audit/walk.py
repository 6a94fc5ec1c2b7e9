"""Verify one chain from its first line to its last, in constant memory, and name the first bad record.

Each line must have the hash it claims, continue the count, and link to the record before it. Each head must
be signed over exactly this past. The heads in `heads.jsonl` must be the chain's own, which shows a rewritten
or a cut chain. The walk stops at the first bad record: what follows it cannot be told from forgery. A
missing segment does not stop it.

The records after the last head must be within the writer's promise (`promise.py`). A chain without a head
is damage: an honest chain has its first head before any other process sees it.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from gateway.audit.folder import chain_started, node_of, segment_name
from gateway.audit.heads_evidence import NO_TRACE, UnknownSignerError, next_trace, verify_head
from gateway.audit.merkle import root_of
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.promise import NOTHING_PROMISED, PROMISED_RECORDS, PROMISED_SECONDS, Promise, promise_after
from gateway.audit.reading import read_lines
from gateway.audit.record import (
    FIRST_WITH_TREES,
    GENESIS,
    HASH_TAIL,
    LINE_TAIL_BYTES,
    MAX_LINE_BYTES,
    Link,
    find_digest,
    parse_link,
    split_hash,
)
from gateway.audit.report import ChainReport, Damage, Ending, Fault
from gateway.audit.timeline import time_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.audit.heads_evidence import HeadsEvidence, ListedChain
    from gateway.audit.notes import Notes
    from gateway.audit.record import HeadRecord

Finding = tuple[Damage, str]

MOST_TRACES = 100_000  # of heads written after the listed ones: hours of writing during one verification
_ANYTHING = Promise(1 << 62, "", "~")  # after a missing segment, until the next head

_MOST_HASHES = 2 * PROMISED_RECORDS  # a writer of trees leaves fewer records without a head
_WRONG_ROOT = "its Merkle root is not that of the records in front of it: its signer's software is at fault"

_AFTER_END = {
    "abandoned": (Damage.AFTER_ABANDONED, "its process gave the chain up in front of it"),
    "recovered": (Damage.AFTER_RECOVERED, "the chain was found to end in front of it"),
}


class Reached(NamedTuple):
    """Where a chain stands at the end of a segment that was checked."""

    first_seq: int
    last_seq: int
    last_hash: str
    last_time: str
    head_line: bytes  # the chain's last head up to there, without the newline
    trace: bytes


class Walk:
    """The state of a walk: the last good record, the heads met, and the findings so far."""

    def __init__(self, chain: str, keys: Mapping[str, Ed25519PublicKey], evidence: HeadsEvidence) -> None:
        self._chain = chain
        self._keys = keys
        self._evidence = evidence
        listed = evidence.listed(chain)
        self._listed_head, self._listed_trace, self._ended = listed.newest, listed.trace, listed.ended
        self._end_seq = self._ended.seq if self._ended else 0  # no record may have this number or a later one
        self._expected = _expected_hashes(listed)
        self._seq = 0
        self._hash = GENESIS
        self._time = time_text(chain_started(chain) or 0)
        self._missing_since: str | None = None
        self._records = 0
        self._last_head: HeadRecord | None = None
        self._head_line = b""
        self._head_before_last_seq = 0
        self._trace = NO_TRACE
        self._traces: OrderedDict[int, bytes] = OrderedDict()
        self._proven_seq = 0
        self._unproven = 0
        self._promise = NOTHING_PROMISED
        self._is_promise_broken = False
        self._breach: Fault | None = None
        self._is_closed = False
        self._hashes: list[bytes] = []  # of the records since the last head
        self._is_hash_missing = False
        self._is_after_gap = False
        self._has_gap = False
        self._torn_tail: str | None = None
        self._place = ("", 1)
        self.reached: dict[int, Reached] = {}

    def run(
        self, segments: Sequence[tuple[int, Path]], *, removed: Notes | None = None, is_part: bool = False
    ) -> None:
        """Read and check the segments, given in order.

        Segments in front of them may have been removed, as far as notes say so. `is_part`: the chain goes on
        behind them, so nothing is said about its end.
        """
        self._missing_segments: list[str] = []
        self._removed_segments: tuple[str, ...] = ()
        self._fault: Fault | None = None
        expected = 1
        for number, path in segments:
            if number > expected and removed is not None:
                expected = self._resume(number, removed, expected)
            self._note_missing(expected, number)
            self._is_after_gap = number > expected
            expected = number + 1
            first_seq = self._seq + 1
            self._fault = self._walk_segment(path, is_last=path == segments[-1][1] and not is_part)
            if self._fault is not None:
                return
            if self._last_head is not None:
                self.reached[number] = Reached(
                    first_seq, self._seq, self._hash, self._time, self._head_line, self._trace
                )
        if is_part:
            return
        head = self._ended or self._listed_head
        if head is not None:
            self._note_missing(expected, head.segment + 1)
        self._fault = self._truncation() or self._wrong_end() or self._unsigned(segments[0][1].name)

    def _resume(self, first: int, removed: Notes, expected: int) -> int:
        """Go on where removed segments ended; the number of the segment that is expected next."""
        before = removed.before(self._chain, first)
        if before is None or before.segment < expected:
            return expected
        head = removed.heads[self._chain, before.segment]
        self._removed_segments += tuple(
            segment_name(self._chain, number) for number in range(expected, before.segment + 1)
        )
        self._seq, self._hash, self._time = before.last_seq, before.last_hash, before.last_time
        self._proven_seq = head.seq
        self._hashes = []
        self._is_hash_missing = before.last_seq != head.seq  # its tree has records that were removed
        self._last_head, self._promise = head, promise_after(head)
        self._head_line = bytes(before.head)
        self._trace = self._traces[head.seq] = bytes.fromhex(before.trace)
        self._evidence.note_named(head)
        if self._listed_head is None or head.seq >= self._listed_head.seq:
            self._evidence.note_newest(head)
        return before.segment + 1

    @property
    def fault(self) -> Fault | None:
        """The first bad record, if there is one."""
        return self._fault

    def report(self) -> ChainReport:
        """The findings. How the chain ends depends on heads that may have been listed meanwhile."""
        return ChainReport(
            chain=self._chain,
            records=self._records,
            last_seq=self._seq,
            proven_seq=self._proven_seq,
            unproven=self._unproven,
            ending=self._ending(),
            missing_segments=tuple(self._missing_segments),
            removed_segments=self._removed_segments,
            missing_since=self._missing_since,
            torn_tail=self._torn_tail,
            fault=self._fault,
        )

    def is_overtaken(self) -> bool:
        """Whether the chain was ended since the walk began: it must then be walked again."""
        return self._evidence.listed(self._chain).ended is not self._ended

    def compare(self) -> None:
        """Report a problem unless the chain's heads equal the listed ones, as far as both go.

        The newest may be listed later: another process holds the file, or the writer was killed.
        """
        if self._fault is not None or self._has_gap or self._evidence.problems:
            return  # reported already, or not all heads were seen
        listed, last = self._evidence.listed(self._chain), self._last_head
        newest = listed.newest
        if newest is not None and last is not None and not self._is_listed(listed, newest, last):
            self._evidence.complain(f"heads.jsonl has not the signed heads that the chain {self._chain} has")
        listed_seq = newest.seq if newest else 0
        if last is not None and last.listed_bytes is None and self._head_before_last_seq > listed_seq:
            # Heads of earlier releases lack `listed_bytes`; those writers listed each head before the next.
            self._evidence.complain(f"heads.jsonl lacks signed heads that the chain {self._chain} has")

    def _is_listed(self, listed: ListedChain, newest: HeadRecord, last: HeadRecord) -> bool:
        """Whether chain and file have the same heads, up to where the shorter of them ends."""
        if newest.seq < last.seq:
            return self._traces.get(newest.seq) == listed.trace
        known = self._listed_head  # as of the start of the walk: more may be listed now
        if known is not None and known.seq == last.seq:
            return self._listed_trace == self._trace
        return listed.later_traces.get(last.seq) == self._trace

    def _ending(self) -> Ending:
        if self._is_closed:
            return Ending.CLOSED
        if self._ended is not None:
            return Ending(self._ended.state)
        lives = self._evidence.lives(self._chain, node_of(self._chain))
        return Ending.OPEN if lives else Ending.ENDED

    def _note_missing(self, expected: int, found: int) -> None:
        """Record the numbers between the expected segment and the one found as missing."""
        gap = [segment_name(self._chain, number) for number in range(expected, found)]
        if gap and self._missing_since is None:
            self._missing_since = self._time
        self._has_gap = self._has_gap or bool(gap)
        self._missing_segments += gap

    def _walk_segment(self, path: Path, *, is_last: bool) -> Fault | None:
        number = 0
        if self._is_closed:
            why = "a segment after the head that closed the chain"
            return Fault(damage=Damage.AFTER_CLOSE, file=path.name, line=1, seq=self._seq + 1, why=why)
        is_plain = self._accept_plain
        try:
            for number, line in read_lines(path):
                if is_plain(line):
                    continue
                finding = self._judge(line)
                if finding is not None:
                    if is_last and self._is_torn(line):
                        self._torn_tail = path.name
                        self._place = (path.name, number)
                        return None
                    damage, why = finding
                    return Fault(damage=damage, file=path.name, line=number, seq=self._seq + 1, why=why)
                if self._is_promise_broken and self._breach is None:
                    self._breach = self._broken_promise(path.name, number)
        except DamagedSegmentError as error:
            return Fault(
                damage=Damage.MALFORMED, file=path.name, line=number + 1, seq=self._seq + 1, why=str(error)
            )
        self._place = (path.name, number + 1)
        return None

    def _accept_plain(self, line: bytes) -> bool:
        """Accept the record that follows the last one, if nothing about it has to be looked into.

        It does nothing that `_judge` would not do. Nearly every line of a log is accepted here.
        """
        digest = sha256(line[:-LINE_TAIL_BYTES] + b"}").digest()
        hashed = digest.hex()
        if line[-LINE_TAIL_BYTES:] != HASH_TAIL % hashed.encode():
            return False
        try:
            link = parse_link(line)
        except ValueError:
            return False
        seq, time, promise = self._seq + 1, link.time, self._promise
        if (
            link.seq != seq
            or link.prev != self._hash
            or link.chain != self._chain
            or link.kind == "head"
            or not (seq <= promise.last_seq and promise.first_time <= time <= promise.last_time)
            or seq in self._expected
            or self._is_after_gap
            or self._is_closed
            or 0 < self._end_seq <= seq
        ):
            return False
        self._hashes.append(digest)
        self._seq, self._hash, self._time = seq, hashed, time
        self._records += 1
        self._unproven += 1
        return True

    def _is_torn(self, line: bytes) -> bool:
        """Whether a bad line may be the incomplete end of a chain that was not closed."""
        return not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES and not self._is_closed

    def _judge(self, line: bytes) -> Finding | None:
        if self._is_closed:
            return Damage.AFTER_CLOSE, "it stands after the head that closed the chain"
        if not line.endswith(b"\n"):
            return Damage.MALFORMED, "the line does not end where a record does"
        digest = find_digest(line)
        try:
            if digest is None:
                split_hash(line[:-1])
                return Damage.EDITED, "its bytes do not have the hash it carries"
            link = parse_link(line)
        except ValueError as error:
            return Damage.MALFORMED, f"not a record: {error}"
        true_hash = digest.hex()
        finding = self._misplaced(link) or self._contradicted(link, true_hash)
        if finding is None and link.kind == "head":
            finding = self._head(line)
            self._hashes = []
        elif len(self._hashes) < _MOST_HASHES:
            self._hashes.append(digest)
        if finding is None:
            self._accept(link, true_hash)
        return finding

    def _misplaced(self, link: Link) -> Finding | None:
        """Why a record with a good hash does not belong at this position; None if it does."""
        if link.chain != self._chain:
            return Damage.FOREIGN, f"a record of the chain {link.chain}"
        if self._is_after_gap and link.seq > self._seq:
            self._promise = self._promise_behind_gap(link.seq)
            self._is_hash_missing = True
            return None
        expected = self._seq + 1
        if link.seq > expected:
            return Damage.DELETED, f"records {expected} to {link.seq - 1} are missing in front of it"
        if link.seq < expected:
            return Damage.REORDERED, f"record {link.seq} stands where {expected} belongs"
        if link.prev != self._hash:
            return Damage.RELINKED, f"it was written after another record {self._seq} than the one here"
        return None

    def _promise_behind_gap(self, seq: int) -> Promise:
        head = self._listed_head
        return promise_after(head) if head is not None and head.seq < seq else _ANYTHING

    def _contradicted(self, link: Link, true_hash: str) -> Finding | None:
        """What a listed head says against this record; None if nothing."""
        if link.seq in self._expected:
            expected, head = self._expected[link.seq]
            if true_hash != expected:
                return Damage.REWRITTEN, f"the head signed at {head.time} states another hash for it"
        if 0 < self._end_seq <= link.seq and self._ended is not None:
            damage, why = _AFTER_END[self._ended.state]
            return damage, f"{why} (the head signed at {self._ended.time})"
        return None

    def _head(self, line: bytes) -> Finding | None:
        try:
            head = verify_head(line, self._keys)
        except UnknownSignerError as error:
            return Damage.UNKNOWN_SIGNER, str(error)
        except ValueError as error:
            return Damage.BAD_SIGNATURE, f"{error}; it, or records since the head before it, were rewritten"
        if self._is_wrong_tree(head):
            return Damage.WRONG_ROOT, _WRONG_ROOT
        self._evidence.note_named(head)
        self._evidence.check_known_end(head, f"record {head.seq} of its chain")
        self._head_before_last_seq = self._last_head.seq if self._last_head else 0
        self._last_head, self._trace = head, next_trace(self._trace, head)
        self._head_line = line[:-1]
        if self._listed_head is None or head.seq >= self._listed_head.seq:
            self._evidence.note_newest(head)
            self._traces[head.seq] = self._trace
            if len(self._traces) > MOST_TRACES:
                self._traces.popitem(last=False)
        self._is_closed = head.state == "closed"
        return None

    def _is_wrong_tree(self, head: HeadRecord) -> bool:
        """Whether the tree of a head is not that of the records in front of it.

        Heads of version 1 have none. After a missing segment the records in front of a head are incomplete.
        """
        if head.schema < FIRST_WITH_TREES or self._is_hash_missing:
            self._is_hash_missing = False
            return False
        root = root_of(self._hashes).hex()
        return (head.tree_size, head.tree_root) != (len(self._hashes), root)

    def _wrong_end(self) -> Fault | None:
        """Check the tree of the head by which a process gave the chain up: of what is behind the last one."""
        head = self._ended
        if head is None or head.state != "abandoned" or self._seq != head.seq - 1:
            return None
        if not self._is_wrong_tree(head):
            return None
        file, line = self._place
        return Fault(damage=Damage.WRONG_ROOT, file=file, line=line, seq=head.seq, why=_WRONG_ROOT)

    def _accept(self, link: Link, true_hash: str) -> None:
        self._is_after_gap = False
        seq = link.seq
        self._seq, self._hash, self._time = seq, true_hash, link.time
        self._records += 1
        self._unproven += 1
        if link.kind == "head" and self._last_head is not None:
            self._prove(seq, promise_after(self._last_head))
        elif seq in self._expected and self._expected[seq][1].state != "recovered":
            self._prove(seq, self._promise)
        elif not self._promise.covers(seq, link.time):
            self._is_promise_broken = True

    def _prove(self, seq: int, promise: Promise) -> None:
        self._proven_seq, self._unproven = seq, 0
        self._promise, self._is_promise_broken, self._breach = promise, False, None

    def _broken_promise(self, file: str, line: int) -> Fault:
        why = (
            f"no signed head vouches for it, and a writer leaves at most {PROMISED_RECORDS} records of "
            f"{PROMISED_SECONDS:.0f} seconds without one: it, or one in front of it, was put there"
        )
        return Fault(damage=Damage.UNSIGNED_TAIL, file=file, line=line, seq=self._seq, why=why)

    def _truncation(self) -> Fault | None:
        for head in (self._ended, self._listed_head):
            if head is None:
                continue
            vouched_seq = head.seq - 1 if head is self._ended else head.seq
            if self._seq < vouched_seq:
                file, line = self._place
                why = f"the head signed at {head.time} vouches for records up to {vouched_seq}"
                return Fault(damage=Damage.TRUNCATED, file=file, line=line, seq=self._seq + 1, why=why)
        return None

    def _unsigned(self, first_file: str) -> Fault | None:
        """A chain without any signed head, or unsigned records beyond the promise."""
        if self._last_head is None and self._listed_head is None and not self._has_gap:
            why = "no head of this chain is signed: none of its records is anybody's"
            return Fault(damage=Damage.NO_HEAD, file=first_file, line=1, seq=1, why=why)
        return self._breach


def _expected_hashes(listed: ListedChain) -> dict[int, tuple[str, HeadRecord]]:
    """The hashes of records as stated by listed heads, by sequence number."""
    expected: dict[int, tuple[str, HeadRecord]] = {}
    if listed.newest is not None:
        expected[listed.newest.seq - 1] = (listed.newest.prev, listed.newest)
        expected[listed.newest.seq] = (listed.newest.hash, listed.newest)
    if listed.ended is not None:
        expected.setdefault(listed.ended.seq - 1, (listed.ended.prev, listed.ended))
    return expected
