"""Keeps one process's chain going: links, segments, heads, and the way back after a fault.

`ready` comes before each record and is where everything that can go wrong shows: the segment is
looked at, a full one is changed, a due head is signed. Only then is a record built on `links` and
appended. Whatever fails leaves a fault behind; until the log has recovered from it, `ready` raises
and nothing is accepted (I5). Recovery is tried by the next call and leaves an `open` record:

- no space: the half line is cut off, the same segment goes on;
- the segment was made read-only: the chain goes on in the next one;
- the segment was taken away, replaced or cut, or a sync failed: an abandoned head says how far the
  chain went, and after a moment a new one begins: not one for each request while files are deleted.

One thread, no locks: the event loop's. A forked child may not write, or two would share a chain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.audit.chain import Chain
from gateway.audit.envelope import Envelopes
from gateway.audit.folder import new_chain_id, prepare_folder, segment_name
from gateway.audit.head import LiveChain, Signer, find_live_chains
from gateway.audit.heads_file import HeadsFile
from gateway.audit.record import HeadRecord, OpenRecord, encode, seal, with_signature
from gateway.audit.segment import Remedy, Segment, SegmentError, raise_fault
from gateway.audit.terms import Durability, Limits
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.audit.record import Links

_LAST_WORD_PATIENCE_SECONDS = 1.0  # of a last head for others to be done: all workers close at once


class Writer:
    """The one writer of a process."""

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
        self._unlisted_head: bytes | None = None
        self._lost: Links | None = None
        self.chain = Chain()
        self._begin(now, "start")

    def ready(self, now: float) -> Links:
        """Where the next record stands; raises `SegmentError` when none can be accepted."""
        if os.getpid() != self._process:
            raise SegmentError("closed, or forked: each process opens a log of its own", Remedy.RETRY)
        if self._fault is not None:
            self._recover(now)
        try:
            self._segment.verify_in_place()
            if self._segment.size >= self._limits.segment_bytes:
                self.sign_head(now)
                self._next_segment()
            elif self._links.seq >= self._head_due_seq or not self._headed_at <= now < self._head_due_at:
                self.sign_head(now)
            if self._unlisted_head is not None:
                self._list_head()
        except SegmentError as fault:
            self._note(fault, now)
            raise
        self.chain.seal_waiting()
        return self._links

    def append(self, covered: bytes, now: float) -> None:
        """Write a record that was built on the links that `ready` returned."""
        self.append_lines(self.chain.seal(covered), now)

    def append_lines(self, lines: bytes, now: float) -> None:
        """Write lines that were sealed after `ready`, and what was left before them: all, or none."""
        try:
            self._write(lines)
        except SegmentError as fault:
            self._note(fault, now)
            raise

    def flush(self, now: float) -> None:
        """Write what was left."""
        if self.chain.is_behind:
            self.ready(now)
            self.append_lines(b"", now)

    def sign_head(self, now: float) -> None:
        """Prove what was written since the last head, if anything was."""
        self._headed_at, self._head_due_at = now, now + self._limits.head_seconds
        self._head_due_seq = self._links.seq + self._limits.head_records
        # A head that is not listed yet comes first: at most one may be missing from heads.jsonl.
        if self._links.seq > self._headed_seq and self._unlisted_head is None:
            self._write_head(now, "live")

    def close(self, now: float) -> None:
        """Sign the last head and let go of the files. Raises `SegmentError` when it cannot be written."""
        if os.getpid() != self._process:
            return  # closed before, or a child of the process whose files these are
        try:
            self.ready(now)
            self._list_head(patience_seconds=_LAST_WORD_PATIENCE_SECONDS)
            self._write_head(now, "closed")
        finally:
            self._process = -1
            self._release()

    def _begin(self, now: float, reason: str) -> None:
        """Start a new chain, with its first record and head."""
        self._links = self.chain.start(new_chain_id(self._node, now))
        try:
            prepare_folder(self._folder)
            self._signer.publish(self._folder)
        except OSError as error:
            raise_fault(error, self._folder, Remedy.NEW_CHAIN)
        except Misconfigured as error:
            raise SegmentError(str(error), Remedy.NEW_CHAIN) from error
        self._number, self._unlisted_head = 1, None
        self._segment = self._open_segment()
        live = None
        try:
            self._write_open(now, reason)
            live = LiveChain(self._folder, self._links.chain)
            self._write_head(now, "live")
        except SegmentError:
            # Nothing in it was vouched for yet; left there, each try on a full disk would leave another.
            self._segment.discard()
            if live is not None:
                live.close()
            raise
        self._live = live
        self._lost = None

    def _open_segment(self) -> Segment:
        path = self._folder / segment_name(self._links.chain, self._number)
        return Segment(path, is_synced=self._is_synced)

    def _next_segment(self) -> None:
        self._number += 1
        try:
            segment = self._open_segment()
        except SegmentError as fault:
            self._number -= 1
            # A name that somebody else took stays taken: only another chain gets round it.
            is_taken = isinstance(fault.__cause__, FileExistsError)
            raise SegmentError(fault.why, Remedy.NEW_CHAIN if is_taken else Remedy.NEXT_SEGMENT) from fault
        self._segment.close()
        self._segment = segment

    def _append(self, covered: bytes) -> bytes:
        self._write(line := self.chain.seal(covered))
        return line

    def _write(self, lines: bytes) -> None:
        self._segment.append(self.chain.unwritten + lines)
        self.chain.note_written()

    def _write_open(self, now: float, reason: str) -> None:
        links, lost = self._links, self._lost
        record = OpenRecord(
            **self.envelopes.members(now, links),
            reason=reason,
            after_chain=lost.chain if lost else None,
            after_seq=lost.seq if lost else None,
            after_hash=lost.hash if lost else None,
        )
        self._append(encode(record))

    def _write_head(self, now: float, state: str) -> None:
        covered = self._head(now, state)
        self._unlisted_head = self._append(covered)
        self._headed_seq = self._links.seq
        self._head_due_seq = self._links.seq + self._limits.head_records
        self._headed_at, self._head_due_at = now, now + self._limits.head_seconds
        self._list_head(patience_seconds=0.0 if state == "live" else _LAST_WORD_PATIENCE_SECONDS)

    def _head(self, now: float, state: str) -> bytes:
        statement = encode(
            HeadRecord(
                **self.envelopes.members(now, self._links),
                state=state,
                segment=self._number,
                signer=self._signer.fingerprint,
                live=find_live_chains(self._folder),
            )
        )
        return with_signature(statement, self._signer.sign(statement))

    def _list_head(self, *, patience_seconds: float = 0.0) -> bool:
        """List the last head in `heads.jsonl`; False when others held that file all the while."""
        line = self._unlisted_head
        if line is None:
            return True
        is_listed = self._heads.append(line, is_synced=self._is_synced, patience_seconds=patience_seconds)
        if is_listed:
            self._unlisted_head = None
        return is_listed

    def _note(self, fault: SegmentError, now: float) -> None:
        self._fault, self._faulted_at = fault, now
        self.chain.roll_back()

    def _recover(self, now: float) -> None:
        """Go on where the last fault left off, or raise again."""
        fault = self._fault
        if fault is None:
            return
        is_lost = fault.remedy is Remedy.NEW_CHAIN
        if is_lost and 0 <= now - self._faulted_at < self._limits.pause_seconds:
            raise SegmentError(fault.why, fault.remedy)
        try:
            if is_lost:
                self._abandon(now)
                self._begin(now, f"new chain: {fault.why}")
            else:
                if fault.remedy is Remedy.NEXT_SEGMENT:
                    self._next_segment()
                self._list_head()  # before anything is added, or each refused request would add an `open`
                self._segment.verify_in_place()
                self._write_open(now, f"resumed: {fault.why}")
        except SegmentError as again:
            self._note(SegmentError(again.why, fault.remedy) if is_lost else again, now)
            raise
        self._fault = None

    def _abandon(self, now: float) -> None:
        """Say in `heads.jsonl` how far the lost chain went; once, however often a new one fails to start."""
        if self._lost is not None:
            return
        try:
            prepare_folder(self._folder)
        except OSError as error:
            raise_fault(error, self._folder, Remedy.NEW_CHAIN)
        except Misconfigured as error:
            raise SegmentError(str(error), Remedy.NEW_CHAIN) from error
        self._unlisted_head = seal(self._head(now, "abandoned"))[0]
        if not self._list_head(patience_seconds=_LAST_WORD_PATIENCE_SECONDS):
            raise SegmentError("heads.jsonl is locked by another process; find out which", Remedy.NEW_CHAIN)
        self._lost = self._links
        self._release()

    def _release(self) -> None:
        self._segment.close()
        self._live.close()
