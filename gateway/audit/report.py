"""What a verification found: values only, for a command to print and a test to look at.

`is_intact` is the one answer: nothing that was ever vouched for is missing or changed. Two things
that are not damage are reported beside it: records after the last signed head, which nobody has
vouched for yet, and a torn tail, half a line that a crash left at the very end of a chain (the
restarted process writes a chain of its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Damage(StrEnum):
    """What is wrong with the first bad record of a chain."""

    EDITED = "edited"  # its bytes do not have the hash it carries
    MALFORMED = "malformed"  # not a record at all
    FOREIGN = "foreign"  # a record of another chain
    DELETED = "deleted"  # records are missing in front of it
    REORDERED = "reordered"  # it stands too late, or twice
    RELINKED = "relinked"  # the record before it is not the one it was written after
    BAD_SIGNATURE = "bad-signature"  # a head that its signer did not sign
    UNKNOWN_SIGNER = "unknown-signer"  # a head by a key that is not trusted
    REWRITTEN = "rewritten"  # a signed head of `heads.jsonl` states another hash for it
    TRUNCATED = "truncated"  # a signed head vouches for records beyond the chain's end
    AFTER_CLOSE = "after-close"  # records follow the head that closed the chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first bad record of a chain. `line` counts from 1 in `file`; `seq` is what should stand there."""

    damage: Damage
    file: str
    line: int
    seq: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """One chain. Records up to `proven_seq` are vouched for by a signed head; `last_seq` verifies so far."""

    chain: str
    records: int
    last_seq: int
    proven_seq: int
    unproven: int
    is_closed: bool
    missing_segments: tuple[str, ...]
    missing_since: str | None = None  # when the last record in front of the first missing segment was written
    torn_tail: str | None  # the file that ends in half a line
    fault: Fault | None

    @property
    def is_intact(self) -> bool:
        """Nothing is missing or changed as far as heads can tell."""
        return self.fault is None and not self.missing_segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A folder or a list of files. `key_source` is `given`, or the file that the public keys came from.

    `foreign_signers` are keys that `signing.pub` holds beside the given ones: no head of theirs counts.
    """

    chains: tuple[ChainReport, ...]
    missing_chains: tuple[str, ...]
    problems: tuple[str, ...]  # of the heads file
    key_source: str
    signers: tuple[str, ...]  # fingerprints of the keys that heads were checked against
    foreign_signers: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Nothing that was ever vouched for is missing or changed."""
        return not self.missing_chains and not self.problems and all(chain.is_intact for chain in self.chains)

    @property
    def records(self) -> int:
        """How many records verify."""
        return sum(chain.records for chain in self.chains)

    @property
    def unproven(self) -> int:
        """How many of them lie after the last signed head of their chain."""
        return sum(chain.unproven for chain in self.chains)
