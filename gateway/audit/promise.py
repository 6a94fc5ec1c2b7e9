"""The signer's promise: how much of a chain, and how old, may stand after its last signed head.

A writer signs a head before it writes the record that would be the 1,001st since the last one, and
before it writes one more than 10 seconds after it. So what stands after the last head of an honest
chain, whenever its process ended and however, is at most 1,000 records of the 10 seconds after that
head. Writer, verification and recovery go by the same numbers, which are here.

What is inside of these bounds is not proven: whoever may write to the folder can put records there,
with times of his choice from these 10 seconds. What is outside no writer of ours has left.

Releases before this one kept the promise less strictly: several records written at once could go
beyond it, and outcomes that had waited for a full disk carried older times. Their heads do not say
what `heads.jsonl` held (`listed_bytes`), and that is how they are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.audit.record import HeadRecord

PROMISED_SECONDS = 10.0
PROMISED_RECORDS = 1000

_EARLIER_RECORDS = 2 * PROMISED_RECORDS  # of an earlier release: one write could be as long again


@dataclass(frozen=True, slots=True)
class Promise:
    """What may follow one head unsigned: sequence numbers up to `last_seq`, times of this span."""

    last_seq: int
    first_time: str
    last_time: str

    def covers(self, seq: int, time: str) -> bool:
        """Whether the writer may have left this record unsigned."""
        return seq <= self.last_seq and self.first_time <= time <= self.last_time


NOTHING_PROMISED = Promise(0, "~", "")
"""Before the first head: every record breaks the promise."""


def promise_after(head: HeadRecord) -> Promise:
    """What may stand after this head, which was verified."""
    is_earlier = head.listed_bytes is None
    return Promise(
        head.seq + (_EARLIER_RECORDS if is_earlier else PROMISED_RECORDS),
        "" if is_earlier else head.time,
        _later(head.time),
    )


def _later(time: str) -> str:
    """The end of the span. A head whose time is none leaves no room for records."""
    try:
        ends_at = datetime.fromisoformat(time) + timedelta(seconds=PROMISED_SECONDS)
    except (ValueError, OverflowError):
        return ""
    return ends_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
