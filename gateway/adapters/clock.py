"""The clock: the one reader of time. Everything else is given `now`, so that tests need no patching."""

from __future__ import annotations

import time


class SystemClock:
    """`Clock` of the ports, over the machine's clocks."""

    def now(self) -> float:
        """Seconds since the epoch, as the machine believes; it may be set, forwards and backwards."""
        return time.time()  # noqa: TID251 -- this is the one reader the ban points to

    def monotonic(self) -> float:
        """Seconds since the machine booted, which nobody can set.

        It counts the time that the machine was suspended: whatever is trusted for a second must not
        come back from a sleep of an hour as if no time had passed.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)
