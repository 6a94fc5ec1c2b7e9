"""What an operator chooses about the audit log: how durable, how large, how often."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Durability(StrEnum):
    """What a record has survived when the call returns."""

    PROCESS = "process"  # the end of our process, in whatever way
    POWER = "power"  # the end of the power


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large, how often, how many, for each process that writes.

    The defaults suit one worker at a few thousand requests a second.
    """

    segment_bytes: int = 64 << 20  # small enough to ship and to verify one at a time
    head_seconds: float = 10.0  # how long a record stays unproven on a quiet node
    head_records: int = 1000  # and on a busy one; a signature costs about 100 µs
    nobody_per_source: int = 10  # refusals of nobody in full, per source address (and key) and second
    nobody_total: int = 200  # and of all sources together: at most some 10 GB a day and worker
    pause_seconds: float = 1.0  # before a new chain takes over from a lost one
