"""The bound on unsigned records: how many, and how old, may follow the last signed head of a chain.

A writer signs a head before it writes the record that would be the 1,001st since the last head, and
before it writes one more than 10 seconds after it. So the records after the last head of an honest chain,
whenever and however its process ended, are at most 1,000, of the 10 seconds after that head. Writer,
verification and recovery all use the numbers defined here.

Records within these bounds are not proven: anyone who may write to the folder can put records there, with
times of their choice from these 10 seconds. Records outside them come from no writer of ours.

Earlier releases kept the promise less strictly: several records written at once could exceed it, and
outcomes that had waited for a full disk carried older times. Their heads lack `listed_bytes`, by which they
are recognised.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.audit.record import HeadRecord

PROMISED_SECONDS = 10.0
PROMISED_RECORDS = 1000

_EARLIER_RECORDS = 2 * PROMISED_RECORDS  # of an earlier release: one write could double the number


class Promise(msgspec.Struct, frozen=True, gc=False):
    """The unsigned records that may follow one head: numbers up to `last_seq`, times within this span."""

    last_seq: int
    first_time: str
    last_time: str

    def covers(self, seq: int, time: str) -> bool:
        """Whether an honest writer may have left this record unsigned."""
        return seq <= self.last_seq and self.first_time <= time <= self.last_time


NOTHING_PROMISED = Promise(0, "~", "")
"""Before the first head: every record breaks the promise."""


def promise_after(head: HeadRecord) -> Promise:
    """The promise that holds after this head, which was verified."""
    is_earlier = head.listed_bytes is None
    return Promise(
        head.seq + (_EARLIER_RECORDS if is_earlier else PROMISED_RECORDS),
        "" if is_earlier else head.time,
        _later(head.time),
    )


def _later(time: str) -> str:
    """The end of the time span. After a head whose time does not parse, no record is accepted."""
    try:
        ends_at = datetime.fromisoformat(time) + timedelta(seconds=PROMISED_SECONDS)
    except (ValueError, OverflowError):
        return ""
    return ends_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
