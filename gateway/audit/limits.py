"""What an operator chooses about the audit log: how durable, how large, how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.audit.promise import PROMISED_RECORDS, PROMISED_SECONDS
from gateway.model.errors import Misconfigured


class Durability(StrEnum):
    """What a record has survived when the call returns."""

    PROCESS = "process"  # the end of our process, in whatever way
    POWER = "power"  # the end of the power


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large, how often, how many, for each process that writes.

    The defaults suit one worker at a few thousand requests a second. Heads may come more often than
    promised (`promise.py`), and never less: what lies beyond the promise is damage to whoever verifies.
    """

    segment_bytes: int = 64 << 20  # small enough to ship and to verify one at a time
    head_seconds: float = PROMISED_SECONDS  # how long a record stays unproven on a quiet node
    head_records: int = PROMISED_RECORDS  # and on a busy one; a signature costs about 100 µs
    nobody_per_source: int = 10  # refusals of nobody in full, per source address (and key) and second
    nobody_total: int = 200  # and of all sources together: at most some 10 GB a day and worker
    pause_seconds: float = 1.0  # before a new chain takes over from a lost one

    def __post_init__(self) -> None:
        """Refuse what would break the promise."""
        if not (0 < self.head_seconds <= PROMISED_SECONDS and 1 < self.head_records <= PROMISED_RECORDS):
            why = (
                f"a head is signed every {PROMISED_SECONDS:.0f} s and {PROMISED_RECORDS} records at least; "
                f"{self.head_seconds} s and {self.head_records} records is not that"
            )
            raise Misconfigured("audit limits", why)
