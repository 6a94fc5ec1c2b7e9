"""The operator's settings of the audit log: durability, segment size, head interval, rate limits."""

from __future__ import annotations

import msgspec

from gateway.audit.promise import PROMISED_RECORDS, PROMISED_SECONDS
from gateway.model.durability import Durability
from gateway.model.errors import Misconfigured

__all__ = ["Durability", "Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sizes, intervals and rate limits, for each process that writes.

    The defaults suit one worker at a few thousand requests a second. Heads may be signed more often than
    promised (`promise.py`), but never less often: a verifier reports records beyond the promise as damage.
    """

    segment_bytes: int = 64 << 20  # small enough to ship and to verify one at a time
    segment_seconds: float = 86_400.0  # so that what is old can be compressed, shipped and removed
    patience_seconds: float = 5.0  # with `power`: how long a request waits for the disk before its 503
    head_seconds: float = PROMISED_SECONDS  # how long a record stays unproven on a quiet node
    head_records: int = PROMISED_RECORDS  # and on a busy one; a signature costs about 100 µs
    anonymous_per_source: int = (
        10  # full records of anonymous refusals per source address and second, whatever keys came with them
    )
    anonymous_total: int = 200  # and of all sources together: at most some 10 GB a day and worker
    pause_seconds: float = 1.0  # before a new chain takes over from a lost one

    def __post_init__(self) -> None:
        """Refuse settings that would break the promise."""
        if not (0 < self.head_seconds <= PROMISED_SECONDS and 1 < self.head_records <= PROMISED_RECORDS):
            why = (
                f"a head is signed every {PROMISED_SECONDS:.0f} s and {PROMISED_RECORDS} records at least; "
                f"{self.head_seconds} s and {self.head_records} records is not that"
            )
            raise Misconfigured("audit limits", why)
