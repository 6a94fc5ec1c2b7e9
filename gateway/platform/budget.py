"""How many questions about unknown keys may be asked: so many from one source, and so many in all.

Two token buckets stand before each question, one of its source and one for all. A bucket fills by its
rate up to its burst, so whoever shares an address with an attacker gets through once it has filled
again. Each worker counts for itself. What is over the budget is no answer about the key.

A source is remembered while its bucket is not full again, so the bucket for all bounds the table too:
nothing is kept of a source that got no token.

A pure state machine: the time is given to it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BURST_SECONDS = 4.0  # of the rate: a process that starts with many keys at once is nobody's attack
SHARE_OF_ONE_SOURCE = 10  # a source gets a tenth of what all get


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
    """The questions that one worker may still ask. `per_second` is for all sources together."""

    def __init__(self, *, per_second: float, now: Callable[[], float]) -> None:
        self._now = now
        self._rate_of_source = per_second / SHARE_OF_ONE_SOURCE
        self._of_all = _Bucket(per_second, now())
        self._of_sources: OrderedDict[str, _Bucket] = OrderedDict()  # by when each was taken from last

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._of_sources)

    def take(self, source: str) -> bool:
        """Take one question for this source, if there is one left for it and in all."""
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
        """Sources whose buckets are full again are as good as new ones."""
        while self._of_sources and next(iter(self._of_sources.values())).is_full(now):
            self._of_sources.popitem(last=False)
