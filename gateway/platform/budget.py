"""Rate limit of requests about unknown keys: for each source, and for all together.

Each request takes a token from two token buckets, one of its source and one for all. A bucket fills at its
rate up to its burst, so a caller that shares an address with an attacker gets through once it has filled
again. Each worker counts for itself. A request over the limit says nothing about the key.

A source is remembered while its bucket is not full again, so the bucket for all bounds the table too: nothing
is kept of a source that got no token.

A pure state machine: the time is passed in. It is not a `BoundedMemory`, which makes room by dropping what
was used least recently: a caller could have its own empty bucket dropped, and begin with a full one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BURST_SECONDS = 4.0  # of the rate: a process that starts with many keys at once is no attack
SHARE_OF_ONE_SOURCE = 10  # a source gets a tenth of the total


class _Bucket:
    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._tokens = self._burst
        self._filled_at = now

    def has_token(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        return self._tokens >= 1.0

    def take(self) -> None:
        self._tokens -= 1.0

    def is_full(self, now: float) -> bool:
        return self._tokens + (now - self._filled_at) * self._rate >= self._burst


class Budget:
    """The requests that one worker may still send. `per_second` is for all sources together."""

    def __init__(self, *, per_second: float, now: Callable[[], float]) -> None:
        self._now = now
        self._rate_of_source = per_second / SHARE_OF_ONE_SOURCE
        self._of_all = _Bucket(per_second, now())
        # ordered by when each took its last token
        self._of_sources: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._of_sources)

    def take(self, source: str) -> bool:
        """Take one token for this source, if its bucket and the common one have one."""
        now = self._now()
        self._forget_full(now)
        bucket = self._of_sources.get(source) or _Bucket(self._rate_of_source, now)
        if not (bucket.has_token(now) and self._of_all.has_token(now)):
            return False
        bucket.take()
        self._of_all.take()
        self._of_sources[source] = bucket
        self._of_sources.move_to_end(source)
        return True

    def _forget_full(self, now: float) -> None:
        """Drop sources whose buckets are full again: they are the same as new ones."""
        while self._of_sources and next(iter(self._of_sources.values())).is_full(now):
            self._of_sources.popitem(last=False)
