"""The result of a verification, as values: for commands to print and for tests to check.

`is_intact` is the one answer: nothing that a signed head proves is missing or changed, and nothing is
there that our own processes could not have written. Two things that are not damage are reported beside it:
records after the last signed head of their chain, which are not proven, and a torn tail, an incomplete
line that a crash left at the very end of a chain (the restarted process writes a chain of its own).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Damage(StrEnum):
    """What is wrong with the first bad record of a chain."""

    EDITED = "edited"  # its bytes do not have the hash it carries
    MALFORMED = "malformed"  # not a record at all
    FOREIGN = "foreign"  # a record of another chain
    DELETED = "deleted"  # records before it are missing
    REORDERED = "reordered"  # it comes too late, or twice
    RELINKED = "relinked"  # the record before it is not the one whose hash it contains
    BAD_SIGNATURE = "bad-signature"  # a head that its signer did not sign
    UNKNOWN_SIGNER = "unknown-signer"  # a head by a key that is not trusted
    WRONG_ROOT = "wrong-root"  # a head whose Merkle root is not that of the records in front of it
    REWRITTEN = "rewritten"  # a signed head of `heads.jsonl` states another hash for it
    TRUNCATED = "truncated"  # a signed head proves records beyond the chain's end
    AFTER_CLOSE = "after-close"  # records follow the head that closed the chain
    AFTER_ABANDONED = "after-abandoned"  # records follow the point where its process abandoned the chain
    AFTER_RECOVERED = "after-recovered"  # records follow the end of the chain that a later start found
    NO_HEAD = "no-head"  # the chain has no signed head at all
    UNSIGNED_TAIL = "unsigned-tail"  # more or older records follow the last head than its signer allows


class Ending(StrEnum):
    """How a chain ends, as far as signed heads say."""

    CLOSED = "closed"  # its last head says so
    ABANDONED = "abandoned"  # its process abandoned it, and said how far it went
    RECOVERED = "recovered"  # its process ended without a last head, and a later one said how far it goes
    OPEN = "open"  # the newest head of its node names it as being written
    ENDED = "ended"  # it is not being written, and no head says where it ends


class Verdict(StrEnum):
    """The result in one word, for scripts."""

    INTACT = "intact"  # and every record is proven
    NOT_ALL_PROVEN = "not-all-proven"  # intact; some records are not proven
    DAMAGED = "damaged"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The first bad record of a chain. `line` counts from 1 in `file`; `seq` is the number expected there."""

    damage: Damage
    file: str
    line: int
    seq: int
    why: str


class ChainReport(msgspec.Struct, frozen=True, kw_only=True):
    """One chain. Records up to `proven_seq` are proven by a signed head; those up to `last_seq` verify."""

    chain: str
    records: int
    last_seq: int
    proven_seq: int
    unproven: int
    ending: Ending
    missing_segments: tuple[str, ...]
    removed_segments: tuple[str, ...] = ()  # by retention, which left a signed note of each
    missing_since: str | None = None  # the time of the last record before the first missing segment
    torn_tail: str | None  # the file that ends in an incomplete line
    fault: Fault | None

    @property
    def is_closed(self) -> bool:
        """Whether its last head says that nothing follows."""
        return self.ending is Ending.CLOSED

    @property
    def is_intact(self) -> bool:
        """Whether nothing is missing or changed as far as heads can tell."""
        return self.fault is None and not self.missing_segments


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report on a folder or a list of files. `key_source` is `given`, or the file the keys came from.

    `foreign_signers` are keys in `signing.pub` that are not among the given ones: their heads do not count.
    """

    chains: tuple[ChainReport, ...]
    missing_chains: tuple[str, ...]
    removed_chains: tuple[str, ...] = ()  # whole chains, in the same way
    problems: tuple[str, ...]  # of the heads file
    key_source: str
    signers: tuple[str, ...]  # fingerprints of the keys that heads were checked against
    foreign_signers: tuple[str, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether nothing that was ever proven is missing or changed."""
        return not self.missing_chains and not self.problems and all(chain.is_intact for chain in self.chains)

    @property
    def verdict(self) -> Verdict:
        """The result in one word."""
        if not self.is_intact:
            return Verdict.DAMAGED
        return Verdict.NOT_ALL_PROVEN if self.unproven else Verdict.INTACT

    @property
    def records(self) -> int:
        """The number of records that verify."""
        return sum(chain.records for chain in self.chains)

    @property
    def unproven(self) -> int:
        """The number of them after the last signed head of their chain."""
        return sum(chain.unproven for chain in self.chains)
