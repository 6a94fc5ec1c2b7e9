"""Reading the log is recorded once per reader and minute: which reading is in the log already.

A reader that polls would otherwise fill the log with its own polls, and each would give the next one
something to read. So the record of a reading stands for those of the same reader within the minute after it.
It names the key, the address and the route, which is what a reader is here: a stolen key that reads from
elsewhere has a record of its own at once. Only a decision that is in the log is remembered, so what is not
known is recorded.

A worker remembers what it recorded itself: a reader whose connections come to several workers has a record of
each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.verdicts import Receipt

if TYPE_CHECKING:
    from collections.abc import Hashable

    from gateway.model.verdicts import Admission, Outcome

STANDS_SECONDS = 60.0
MOST_READERS = 4096


class Readings:
    """The readings that one worker has recorded."""

    def __init__(self, *, seconds: float = STANDS_SECONDS, most: int = MOST_READERS) -> None:
        self._seconds = seconds
        self._most = most
        self._recorded: dict[Hashable, tuple[float, str]] = {}  # the longest known first

    def recall(self, admission: Admission) -> Receipt | None:
        """The receipt of a reading that a record stands for already. Its end is not recorded again."""
        known = self._recorded.get(_reader(admission))
        if known is None:
            return None
        at, record_id = known
        # A clock that went back counts as a minute, too; and the request that was recorded itself comes again
        # only where what was recorded of it says that nothing was sent.
        if not 0 < admission.request.received_at - at < self._seconds:
            return None
        return Receipt(record_id=record_id, admission=admission, on_close=_nothing)

    def note(self, receipt: Receipt) -> None:
        """Remember a reading that is in the log now."""
        admission = receipt.admission
        reader = _reader(admission)
        self._recorded.pop(reader, None)
        self._recorded[reader] = admission.request.received_at, receipt.record_id
        while len(self._recorded) > self._most:
            del self._recorded[next(iter(self._recorded))]


def _reader(admission: Admission) -> Hashable:
    principal, request = admission.allowed.access.principal, admission.request
    return (
        *(principal.key_id, principal.token_id, principal.tenant, principal.tenant_record),
        *(request.client, request.route),
    )


def _nothing(_: Outcome) -> None:
    """The record that stands for this reading has an outcome of its own."""
