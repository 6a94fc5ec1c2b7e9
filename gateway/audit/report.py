"""What a verification found: values only, for a command to print and a test to look at.

`is_intact` is the one answer: nothing that was ever vouched for is missing or changed, and nothing is
there that our own processes could not have left. Two things that are not damage are reported beside
it: records behind the last signed head of their chain, which nobody has vouched for, and a torn tail,
half a line that a crash left at the very end of a chain (the restarted process writes a chain of its
own).
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
    AFTER_ABANDONED = "after-abandoned"  # records follow where its process gave the chain up
    AFTER_RECOVERED = "after-recovered"  # records follow where a later start found the end of the chain
    NO_HEAD = "no-head"  # the chain has no signed head at all
    UNSIGNED_TAIL = "unsigned-tail"  # more or other records behind the last head than its signer leaves


class Ending(StrEnum):
    """How a chain ends, as far as signed heads say."""

    CLOSED = "closed"  # its last head says so
    ABANDONED = "abandoned"  # its process gave it up, and said how far it went
    RECOVERED = "recovered"  # its process ended without a last head, and a later one said what it found
    OPEN = "open"  # the newest head of its node names it as one that is being written
    ENDED = "ended"  # it is not, and nobody has said where it ends


class Verdict(StrEnum):
    """The answer in a word, for scripts."""

    INTACT = "intact"  # and every record is proven
    NOT_ALL_PROVEN = "not-all-proven"  # intact; some records are not proven
    DAMAGED = "damaged"


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
    ending: Ending
    missing_segments: tuple[str, ...]
    missing_since: str | None = None  # when the last record in front of the first missing segment was written
    torn_tail: str | None  # the file that ends in half a line
    fault: Fault | None

    @property
    def is_closed(self) -> bool:
        """Its last head says that nothing follows."""
        return self.ending is Ending.CLOSED

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
    def verdict(self) -> Verdict:
        """The answer in a word."""
        if not self.is_intact:
            return Verdict.DAMAGED
        return Verdict.NOT_ALL_PROVEN if self.unproven else Verdict.INTACT

    @property
    def records(self) -> int:
        """How many records verify."""
        return sum(chain.records for chain in self.chains)

    @property
    def unproven(self) -> int:
        """How many of them lie after the last signed head of their chain."""
        return sum(chain.unproven for chain in self.chains)
