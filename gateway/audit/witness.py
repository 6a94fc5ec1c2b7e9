"""What `heads.jsonl` testifies: how far each chain certainly went, and which chains there were.

Only the newest head of each chain is kept, so the memory it takes grows with the number of chains
and not with the age of the log. A line counts when its signature is by a trusted key; any other line
is a problem of its own, except half a line at the very end, which is being written or was torn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.audit.head import verify_signature
from gateway.audit.record import MAX_LINE_BYTES, HeadRecord, hash_of, parse_line, split_hash, split_signature
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


def load_witness(path: Path, keys: Mapping[str, Ed25519PublicKey]) -> Witness:
    """Hear every head of a heads file."""
    witness = Witness()
    for number, line in read_lines(path):
        if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
            break
        try:
            witness.hear(verify_head(line, keys))
        except ValueError as error:
            if len(witness.problems) < MAX_PROBLEMS:
                witness.problems.append(f"{path.name}, line {number}: {error}")
    return witness
