"""Join each allowed request with its outcome, and sum up what was used: times, bytes, addresses."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from typing import Final

    from gateway.audit.record import DecisionRecord, OutcomeRecord

MAX_CLIENTS: Final = 1000  # addresses that are kept of one sum
MAX_OPEN: Final = 100_000  # requests without an outcome, the newest
ELSEWHERE: Final = "(other)"


class Uses(msgspec.Struct, kw_only=True):
    """Requests that were allowed, summed up. `bytes` are those that were sent."""

    times: int = 0
    bytes: int = 0
    first: str = ""
    last: str = ""
    clients: dict[str, int] = {}

    def add(self, time: str, client: str) -> None:
        """One more request."""
        self.times += 1
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)
        count_within(self.clients, client, MAX_CLIENTS)


class OpenUses:
    """Requests whose outcome has not come, and the sums that its bytes belong to."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, tuple[Uses, ...]] = OrderedDict()

    def open(self, record: DecisionRecord, *sums: Uses) -> None:
        """Count a request in these sums."""
        for one in sums:
            one.add(record.time, record.request.client)
        self._sums[record.id] = sums
        if len(self._sums) > MAX_OPEN:
            self._sums.popitem(last=False)

    def close(self, record: OutcomeRecord) -> bool:
        """Add the bytes of an outcome to the sums of its request; whether that was counted."""
        sums = self._sums.pop(record.decision_id, None)
        for one in sums or ():
            one.bytes += record.bytes
        return sums is not None


def count_within(counts: dict[str, int] | Counter[str], name: str, most: int, count: int = 1) -> None:
    """Count a name, or `ELSEWHERE` where there are as many names already."""
    known = name if name in counts or len(counts) < most else ELSEWHERE
    counts[known] = counts.get(known, 0) + count
