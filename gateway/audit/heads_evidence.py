"""Read and check `heads.jsonl`: how far each chain is known to go, and which chains existed.

Only the newest heads of each chain are kept, so memory grows with the number of chains and not with the
age of the log. A line counts when it and the head in it are signed by a trusted key. Any other line is a
problem to report, except an incomplete line at the very end, which is being written or was torn. Each line
must link to the line before it: a line removed from the middle shows at the next line.

Every head says which line of this file its process knew last, wherever the head is. A head that knows a
line that is not there is a lasting problem: so lines cut off the end, and a file that was started again
from nothing, show by any head signed after them. Lines after which nothing was signed are missed only in
comparison with a copy kept elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from gateway.audit.folder import HEADS_NAME
from gateway.audit.head import verify_signature
from gateway.audit.heads_file import HeadsEnd, has_line_ending_at, parse_listed
from gateway.audit.packed import DamagedSegmentError
from gateway.audit.reading import read_lines, unreadable
from gateway.audit.record import (
    ENDED_BY_OTHERS,
    GENESIS,
    MAX_LINE_BYTES,
    HeadRecord,
    hash_of,
    parse_line,
    split_hash,
    split_signature,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_PROBLEMS = 20  # of one heads file; more would add nothing
NO_TRACE = b""


class UnknownSignerError(ValueError):
    """A head signed by a key that is not trusted."""


def next_trace(trace: bytes, head: HeadRecord) -> bytes:
    """A digest of all heads of a chain up to this one, in order: equal traces mean the same heads."""
    return hashlib.sha256(trace + head.hash.encode()).digest()


@dataclass(slots=True)
class ListedChain:
    """What is listed of one chain: its newest own head, the trace up to it, and the head that ended it."""

    newest: HeadRecord | None = None
    trace: bytes = NO_TRACE
    later_traces: dict[int, bytes] = field(default_factory=dict)  # by sequence number; of the second read
    ended: HeadRecord | None = None  # the abandoned or recovered head: no record of the chain follows it


class HeadsEvidence:
    """The contents of a heads file as far as read, and its problems. Without a file it is empty."""

    def __init__(self, path: Path | None, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.chains: dict[str, ListedChain] = {}
        self.named: set[str] = set()  # all chains that any trusted head names
        self.newest_of_node: dict[str, HeadRecord] = {}
        self.problems: list[str] = []
        self._path = path
        self._keys = keys
        self._descriptor: int | None = None
        self._offset = self._number = 0
        self._followed: str | None = (
            GENESIS  # None after a bad line: its own hash is unknown, so the next link cannot be checked
        )
        self._since = "the beginning"

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                raise unreadable(self._path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def listed(self, chain: str) -> ListedChain:
        """What is listed of a chain so far."""
        return self.chains.get(chain) or ListedChain()

    def read(self, *, is_again: bool = False) -> None:
        """Read and check the lines that were not read yet."""
        if self._path is None:
            return
        for _, line in self._lines(self._path):
            if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                return
            self._number += 1
            self._check_line(line, is_again=is_again)
            self._offset += len(line)

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        try:
            yield from read_lines(path, self._offset)
        except DamagedSegmentError as error:
            self.complain(f"{HEADS_NAME}: {error}")

    def check_known_end(self, head: HeadRecord, where: str) -> None:
        """Report a problem when a head knows a line of the file that is not there.

        Skipped once a problem is known: where lines are missing, those after them are at other offsets.
        """
        if self._descriptor is None or head.listed_bytes is None or head.listed_hash is None or self.problems:
            return
        end = HeadsEnd(head.listed_bytes, head.listed_hash)
        if has_line_ending_at(self._descriptor, end):
            return
        self.complain(
            f"{HEADS_NAME} was cut, replaced or begun anew: the head of {head.chain} that was signed at "
            f"{head.time} ({where}) knew a line of it that ended at byte {end.size} and is not there"
        )

    def note_named(self, head: HeadRecord) -> None:
        """Take note of the chains that a verified head names, wherever the head is."""
        self.named.add(head.chain)
        self.named.update(head.live)

    def note_newest(self, head: HeadRecord) -> None:
        """Take note of a verified head that may not be listed yet: it may be the newest of its node."""
        newest = self.newest_of_node.get(head.node)
        if newest is None or head.time > newest.time:
            self.newest_of_node[head.node] = head

    def lives(self, chain: str, node: str) -> bool:
        """Whether the newest head of the node names the chain as being written."""
        newest = self.newest_of_node.get(node)
        return newest is not None and chain in newest.live

    def complain(self, problem: str) -> None:
        """Add a problem of the file, up to `MAX_PROBLEMS`."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def _check_line(self, line: bytes, *, is_again: bool) -> None:
        where = f"{HEADS_NAME}, line {self._number}"
        try:
            head, prev, own = verify_listed(line, self._keys)
        except ValueError as error:
            self.complain(f"{where}: {error}")
            self._followed = None
            return
        if self._followed not in (None, prev):
            self.complain(
                f"{where}: lines are missing in front of it, or were changed; "
                f"they were written between {self._since} and {head.time}"
            )
        self._followed, self._since = own, head.time
        if (head.listed_bytes or 0) > self._offset and not self.problems:
            self.complain(f"{where}: lines are missing in front of it: it knows of more than stands there")
        self.check_known_end(head, where)
        self.note_named(head)
        self.newest_of_node[head.node] = head  # the order in the file is more reliable than any clock
        self._place(head, where, is_again=is_again)

    def _place(self, head: HeadRecord, where: str, *, is_again: bool) -> None:
        """Add a head to its chain. A head whose sync failed may be listed twice."""
        listed = self.chains.setdefault(head.chain, ListedChain())
        newest, ended = listed.newest, listed.ended
        if ended is not None:
            if (head.seq, head.prev) != (ended.seq, ended.prev):
                self.complain(f"{where}: a head of {head.chain}, which had ended")
        elif head.state in ENDED_BY_OTHERS:
            listed.ended = head
        elif newest is None or head.seq > newest.seq:
            listed.newest, listed.trace = head, next_trace(listed.trace, head)
            if is_again:
                listed.later_traces[head.seq] = listed.trace
        elif head.hash != newest.hash:
            self.complain(f"{where}: a head of {head.chain} that is older than the one before it")


def verify_head(line: bytes, keys: Mapping[str, Ed25519PublicKey]) -> HeadRecord:
    """Parse a whole line to a head and verify its hash and signature. Raises `ValueError`."""
    covered, claimed_hash = split_hash(line[:-1])
    if claimed_hash != hash_of(covered):
        raise ValueError("its bytes do not have the hash it carries")
    head = parse_line(line)
    if not isinstance(head, HeadRecord):
        raise ValueError("not a head")  # noqa: TRY004 -- the line is at fault, not the caller's types
    key = keys.get(head.signer)
    if key is None:
        raise UnknownSignerError(f"signed by {head.signer}, which is not a trusted key")
    statement, signature = split_signature(covered)
    verify_signature(key, signature, statement)
    return head


def verify_listed(line: bytes, keys: Mapping[str, Ed25519PublicKey]) -> tuple[HeadRecord, str, str]:
    """Verify a line of `heads.jsonl`: its head, the hash it links to, its own hash. Raises `ValueError`."""
    covered, claimed_hash = split_hash(line[:-1])
    if claimed_hash != hash_of(covered):
        raise ValueError("its bytes do not have the hash it carries")
    listed = parse_listed(line)
    head = verify_head(bytes(listed.head) + b"\n", keys)
    statement, signature = split_signature(covered)
    verify_signature(keys[head.signer], signature, statement)
    return head, listed.prev, claimed_hash
