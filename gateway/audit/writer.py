"""Write one process's audit chain: append records, sign heads, change segments, recover from faults.

`ready` comes before each record and detects everything that can go wrong: it checks the segment, opens the
next one when it is full, signs a head that is due. Only then is a record built on `links` and appended. Any
failure is kept as a fault; until the log has recovered from it, `ready` raises and nothing is accepted (I5).
The next call tries to recover, and a recovery writes an `open` record:

- no space: the incomplete line is cut off, the same segment continues;
- the segment was made read-only: the chain continues in the next one;
- the segment or `heads.jsonl` was removed, replaced or cut, or a sync failed: an abandoned head says how far
  the chain went, and after a pause a new chain begins. The pause prevents one new chain per request while
  files keep being deleted.

Heads keep the signer's promise (`promise.py`): the head comes before the record that would break it. A
head is in its chain in time even while another process holds `heads.jsonl`; it is listed there later.

No other process sees a chain before its first head: its `open` record and that head are written under a
hidden name, which is then renamed to the segment's; then the head is listed, and then the chain is announced
as live. A process killed at any of these steps leaves nothing, or a chain with a head.

After a fault, a `gap` record says from when to when nothing could be written, and how much was refused.

One thread (the event loop's, or that of `grouped_log.py`), no locks. A forked child may not write, or two
processes would share a chain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from gateway.audit.chain import Chain
from gateway.audit.envelope import Envelopes
from gateway.audit.event_bodies import EventBodies
from gateway.audit.folder import HEADS_NAME, new_chain_id, prepare_folder, segment_name
from gateway.audit.gap import OpenGap
from gateway.audit.head import LiveChain, Signer, find_live_chains
from gateway.audit.heads_file import NO_LINE, HeadsFile
from gateway.audit.known_end import find_known_end
from gateway.audit.limits import Durability, Limits
from gateway.audit.record import ENDED_BY_OTHERS, HeadRecord, OpenRecord, encode, encode_signed, seal
from gateway.audit.recovery import recover
from gateway.audit.segment import Segment, SegmentError, WriteRemedy, raise_fault
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gateway.audit.chain import Ready
    from gateway.audit.record import ChainPosition

_PATIENCE_SECONDS = 1.0  # how long a first or last head waits for the lock: all workers close at once
MOST_UNLISTED_HEADS = 1000  # some 600 bytes each; at one in ten seconds, almost three hours of heads


class _Headed(NamedTuple):
    """The last head of the chain: its sequence number and its time."""

    seq: int
    at: float


class Writer:
    """The only writer of a process."""

    def __init__(
        self, folder: Path, node: str, signer: Signer, durability: Durability, limits: Limits, now: float
    ) -> None:
        self.envelopes = Envelopes(node)
        self._folder = folder
        self._node = node
        self._signer = signer
        self._is_synced = durability is Durability.POWER
        self._limits = limits
        self._heads = HeadsFile(folder, signer)
        self._process = os.getpid()
        self._fault: SegmentError | None = None
        self._faulted_at = 0.0
        self._lost: ChainPosition | None = None
        self._gap = OpenGap()
        self._events = EventBodies(node)
        self.chain = Chain()
        self._begin(now, f"start{self._learn_heads()}")
        if recover(folder, node, signer, self._heads, self._recovered_head, now, is_synced=self._is_synced):
            self._write_head(now)  # a head that knows the recovered heads just listed

    def check(self, now: float) -> None:
        """Raises `SegmentError` when no record could be accepted now; signs a head that is due."""
        if os.getpid() != self._process:
            raise SegmentError("closed, or forked: each process opens a log of its own", WriteRemedy.RETRY)
        if self._fault is not None:
            self._recover(now)
        try:
            self._segment.verify_in_place()
            if self._segment.size >= self._limits.segment_bytes or now >= self._segment_due_at:
                self._end_segment(now)
            elif self._is_head_due(now):
                self.sign_head(now)
            if self._unlisted:
                self._list_heads()
        except SegmentError as fault:
            self._note(fault, now)
            raise

    def ready(self, now: float) -> ChainPosition:
        """The position of the next record; raises `SegmentError` when none can be accepted."""
        self.check(now)
        if self._is_head_due(now):  # after a quiet period the last head is too old for another record
            try:
                self._write_head(now)
            except SegmentError as fault:
                self._note(fault, now)
                raise
        if self.chain.is_behind and (waiting := self.chain.take_waiting()):
            self.chain.unwritten += self._seal_all(waiting, now)
            if self._is_head_due(now):
                self.chain.unwritten += self._seal_head(now, "live")
        return self._links

    def append_all(self, records: Sequence[Ready], now: float) -> None:
        """Write records, and the deferred ones before them, in one write after `ready`: all, or none."""
        self._append_lines(self._seal_all(records, now), now)

    def note_unrecorded(self, calls: int = 1) -> None:
        """Count calls that failed because the log could not be written: the `gap` record has their number."""
        self._gap.count(calls)

    def flush(self, now: float) -> None:
        """Write the deferred records."""
        if self.chain.is_behind:
            self.ready(now)
            self._append_lines(b"", now)

    def tick(self, now: float) -> None:
        """Do what is due by time alone, and check that `heads.jsonl` is still what it was."""
        self.check(now)
        try:
            self._heads.look()
        except SegmentError as fault:
            self._note(fault, now)
            raise
        self.flush(now)

    def sign_head(self, now: float) -> None:
        """Sign a head if any record was written since the last one."""
        if self._links.seq > self._headed.seq:
            self._write_head(now)

    def unproven_seconds(self, now: float) -> float:
        """How long the oldest record that no head proves has been waiting for one, at most; 0 for none."""
        return max(0.0, now - self._headed.at) if self._links.seq > self._headed.seq else 0.0

    def close(self, now: float) -> None:
        """Sign the last head and close the files. Raises `SegmentError` when it cannot be written."""
        if os.getpid() != self._process:
            return  # closed already, or a child of the process that owns these files
        try:
            self.check(now)
            if self.chain.is_behind:
                self.ready(now)
            self._write_last_head(now)
        finally:
            self._process = -1
            self._release()

    def _is_head_due(self, now: float) -> bool:
        """Whether a head must be written before any other record."""
        return self._links.seq >= self._due_seq or not self._headed.at <= now < self._due_at

    def _set_headed(self, headed: _Headed) -> None:
        self._headed = headed
        self._due_seq = headed.seq + self._limits.head_records
        self._due_at = headed.at + self._limits.head_seconds

    def _append_lines(self, lines: bytes, now: float) -> None:
        try:
            self._write(lines)
        except SegmentError as fault:
            self._note(fault, now)
            raise

    def _learn_heads(self) -> str:
        """Read the end of `heads.jsonl` at start. Returns a text about its loss for the `open` record."""
        if self._heads.learn() != NO_LINE:
            return ""
        known = find_known_end(self._folder, self._signer)
        if known == NO_LINE:
            return ""
        self._heads.known = known
        return f": heads.jsonl is missing or empty, and heads in segments know {known.size} bytes of it"

    def _begin(self, now: float, reason: str) -> None:
        """Start a new chain. It is hidden, and named by no head, until it has its first head."""
        links = self._links = self.chain.start(new_chain_id(self._node, now))
        try:
            prepare_folder(self._folder)
            self._signer.publish(self._folder)
        except OSError as error:
            raise_fault(error, self._folder, WriteRemedy.NEW_CHAIN)
        except Misconfigured as error:
            raise SegmentError(str(error), WriteRemedy.NEW_CHAIN) from error
        self._number = 1
        self._segment_due_at = now + self._limits.segment_seconds
        self._unlisted: list[bytes] = []
        self._sealed_heads: list[bytes] = []
        self._written_head = _Headed(0, now)
        self._set_headed(self._written_head)
        live = LiveChain(self._folder, links.chain)
        try:
            segment = self._segment = self._open_segment()
        except SegmentError:
            live.close()
            raise
        try:
            self._write_open(now, reason)
            self._write(self._seal_head(now, "live"))
            self._heads.ensure_there()
            segment.publish()
            self._list_heads(patience_seconds=_PATIENCE_SECONDS, is_anew=True)
        except SegmentError:
            # No listed head covers it; kept, each attempt on a full disk would leave another file.
            segment.discard()
            live.close()
            raise
        live.announce()
        self._live = live
        self._lost = None

    def _open_segment(self) -> Segment:
        path = self._folder / segment_name(self._links.chain, self._number)
        return Segment(path, is_synced=self._is_synced)

    def _end_segment(self, now: float) -> None:
        """Close the segment, which is full or old enough, with a head. An empty one is kept."""
        if self._segment.size:
            self.sign_head(now)
            self._next_segment()
        self._segment_due_at = now + self._limits.segment_seconds

    def _next_segment(self) -> None:
        self._number += 1
        segment = None
        try:
            segment = self._open_segment()
            segment.publish()
        except SegmentError as fault:
            self._number -= 1
            # A segment name that another program took stays taken: only a new chain avoids it.
            is_taken = isinstance(fault.__cause__, FileExistsError | FileNotFoundError)
            if segment is not None:
                segment.discard()
            raise SegmentError(
                fault.why, WriteRemedy.NEW_CHAIN if is_taken else WriteRemedy.NEXT_SEGMENT
            ) from fault
        self._segment.close()
        self._segment = segment

    def _write(self, lines: bytes) -> None:
        self._segment.append(self.chain.unwritten + lines)
        self.chain.note_written()
        self._written_head = self._headed
        if self._sealed_heads:
            self._unlisted += self._sealed_heads
            self._sealed_heads = []

    def _write_open(self, now: float, reason: str) -> None:
        links, lost = self._links, self._lost
        record = OpenRecord(
            **self.envelopes.members(now, links),
            reason=reason,
            after_chain=lost.chain if lost else None,
            after_seq=lost.seq if lost else None,
            after_hash=lost.hash if lost else None,
        )
        self._write(self.chain.seal(encode(record)))

    def _seal_all(self, records: Sequence[Ready], now: float) -> bytes:
        """The lines of the next records, with a head wherever one is due between them."""
        time = self.envelopes.times.text(now)
        room = max(0, self._due_seq - self._links.seq)
        if len(records) <= room:
            return self.chain.seal_all(records, time)
        lines = [self.chain.seal_all(records[:room], time)]
        while records := records[room:]:
            lines.append(self._seal_head(now, "live"))
            room = self._limits.head_records
            lines.append(self.chain.seal_all(records[:room], time))
        return b"".join(lines)

    def _write_head(self, now: float) -> None:
        """Write a head, and list it unless another process holds `heads.jsonl`."""
        self._heads.look()
        self._live.announce()
        if len(self._unlisted) >= MOST_UNLISTED_HEADS:
            raise SegmentError(
                f"{self._folder / HEADS_NAME} is locked by another process for too long; find out which, and "
                "end it",
                WriteRemedy.RETRY,
            )
        self._write(self._seal_head(now, "live"))
        self._list_heads()

    def _write_last_head(self, now: float) -> None:
        """Close the chain. If `heads.jsonl` is damaged, the head says what was known of it; then raise."""
        lost = None
        try:
            self._heads.look()
        except SegmentError as fault:
            lost = fault
        self._write(self._seal_head(now, "closed"))
        self._list_heads(patience_seconds=_PATIENCE_SECONDS, is_anew=True)
        if lost is not None:
            raise lost

    def _seal_head(self, now: float, state: str) -> bytes:
        line = self.chain.seal_head(self._head(now, state, self._links, segment=self._number))
        self._sealed_heads.append(line)
        self._set_headed(_Headed(self._links.seq, now))
        return line

    def _head(
        self, now: float, state: str, links: ChainPosition, *, segment: int, unproven_from: int | None = None
    ) -> bytes:
        """The covered bytes of a head at this position of a chain: our own, or a recovered one."""
        known = self._heads.known
        live = {*find_live_chains(self._folder), self._links.chain}
        if state in ENDED_BY_OTHERS:
            live.discard(links.chain)
        size, root = (None, None) if state == "recovered" else self.chain.tree()
        head = HeadRecord(
            **self.envelopes.members(now, links),
            state=state,
            segment=segment,
            signer=self._signer.fingerprint,
            live=tuple(sorted(live)),
            unproven_from=unproven_from,
            listed_bytes=known.size,
            listed_hash=known.hash,
            tree_root=root,
            tree_size=size,
        )
        return encode_signed(head, self._signer.sign)

    def _recovered_head(self, now: float, links: ChainPosition, segment: int, unproven_from: int) -> bytes:
        """The last head of a chain whose process ended without one."""
        covered = self._head(now, "recovered", links, segment=segment, unproven_from=unproven_from)
        return seal(covered)[0]

    def _list_heads(self, *, patience_seconds: float = 0.0, is_anew: bool = False) -> None:
        """List the heads that are not listed yet; they stay queued while others hold the file."""
        self._heads.append(
            self._unlisted, is_synced=self._is_synced, patience_seconds=patience_seconds, is_anew=is_anew
        )

    def _note(self, fault: SegmentError, now: float) -> None:
        self._fault, self._faulted_at = fault, now
        self._gap.begin(now, fault.why)
        self.chain.roll_back()
        self._sealed_heads = []
        self._set_headed(self._written_head)

    def _recover(self, now: float) -> None:
        """Continue after the last fault, or raise it again."""
        fault = self._fault
        if fault is None:
            return
        is_lost = fault.remedy is WriteRemedy.NEW_CHAIN
        if is_lost and 0 <= now - self._faulted_at < self._limits.pause_seconds:
            raise SegmentError(fault.why, fault.remedy)
        try:
            if is_lost:
                self._abandon(now)
                self._begin(now, f"new chain: {fault.why}")
            else:
                if fault.remedy is WriteRemedy.NEXT_SEGMENT:
                    self._next_segment()
                self._list_heads()  # before any write, or each refused request would add an `open` record
                self._segment.verify_in_place()
                if self._is_head_due(now):
                    self._write_head(now)
                self._write_open(now, f"resumed: {fault.why}")
        except SegmentError as again:
            self._note(SegmentError(again.why, fault.remedy) if is_lost else again, now)
            raise
        self._fault = None
        gap = self._gap.end(now)
        if gap is not None:
            self.chain.leave([(self.envelopes.ids.next(now), self._events.of_gap(gap))])

    def _abandon(self, now: float) -> None:
        """List an abandoned head for the lost chain; once, however often a new chain fails to start."""
        if self._lost is not None:
            return
        try:
            prepare_folder(self._folder)
        except OSError as error:
            raise_fault(error, self._folder, WriteRemedy.NEW_CHAIN)
        except Misconfigured as error:
            raise SegmentError(str(error), WriteRemedy.NEW_CHAIN) from error
        self._unlisted.append(seal(self._head(now, "abandoned", self._links, segment=self._number))[0])
        try:
            self._list_heads(patience_seconds=_PATIENCE_SECONDS, is_anew=True)
        except SegmentError:
            del self._unlisted[-1:]
            raise
        if self._unlisted:
            del self._unlisted[-1]
            raise SegmentError(
                "heads.jsonl is locked by another process; find out which", WriteRemedy.NEW_CHAIN
            )
        self._lost = self._links
        self._release()

    def _release(self) -> None:
        self._segment.close()
        self._live.close()
