"""What `heads.jsonl` testifies: how far each chain certainly went, and which chains there were.

Only the newest head of each chain is kept, so the memory it takes grows with the number of chains
and not with the age of the log. A line counts when it and the head in it are signed by a trusted key;
any other line is a problem of its own, except half a line at the very end, which is being written or
was torn. Each line has to follow the one before it: what was taken out between two lines shows at the
second. Lines taken off the end show only in a copy that was kept elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.audit.head import verify_signature
from gateway.audit.heads_file import parse_listed
from gateway.audit.record import (
    GENESIS,
    MAX_LINE_BYTES,
    HeadRecord,
    hash_of,
    parse_line,
    split_hash,
    split_signature,
)
from gateway.model.errors import Reason, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_PROBLEMS = 20  # of one heads file; more would say nothing new


class UnknownSignerError(ValueError):
    """A head by a key that is not trusted."""


@dataclass(slots=True)
class Witness:
    """The newest trusted head of each chain, and all chains that any trusted head names."""

    newest: dict[str, HeadRecord] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def hear(self, head: HeadRecord) -> None:
        """Take in a head that was verified."""
        self.named.add(head.chain)
        self.named.update(head.live)
        known = self.newest.get(head.chain)
        if known is None or head.seq > known.seq:
            self.newest[head.chain] = head

    def complain(self, problem: str) -> None:
        """Take note of what is wrong with the file."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and raw lines; one over the limit comes in pieces. Raises `Unavailable`."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                yield number, line
    except OSError as error:
        raise Unavailable(
            "audit", f"{path} cannot be read ({error.strerror}); verify as its owner", Reason.NO_AUDIT
        ) from error


def verify_head(line: bytes, keys: Mapping[str, Ed25519PublicKey]) -> HeadRecord:
    """The head of a whole line, its hash and its signature good. Raises `ValueError`."""
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
    """The head of a line of `heads.jsonl`, the hash that it follows, and its own. Raises `ValueError`."""
    covered, claimed_hash = split_hash(line[:-1])
    if claimed_hash != hash_of(covered):
        raise ValueError("its bytes do not have the hash it carries")
    listed = parse_listed(line)
    head = verify_head(bytes(listed.head) + b"\n", keys)
    statement, signature = split_signature(covered)
    verify_signature(keys[head.signer], signature, statement)
    return head, listed.prev, claimed_hash


def load_witness(path: Path, keys: Mapping[str, Ed25519PublicKey]) -> Witness:
    """Hear every head of a heads file, each in its place."""
    witness = Witness()
    followed: str | None = GENESIS  # None after a bad line: what it had in its place, nobody can say
    since = "the beginning"
    for number, line in read_lines(path):
        if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
            break
        try:
            head, prev, own = verify_listed(line, keys)
        except ValueError as error:
            witness.complain(f"{path.name}, line {number}: {error}")
            followed = None
            continue
        if followed not in (None, prev):
            witness.complain(
                f"{path.name}, line {number}: lines are missing in front of it, or were changed; "
                f"they were written between {since} and {head.time}"
            )
        followed, since = own, head.time
        witness.hear(head)
    return witness
