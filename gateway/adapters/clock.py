"""The system clock: the only module that reads time. All other code gets `now` passed in."""

from __future__ import annotations

import time


class SystemClock:
    """`Clock` of `model/ports`, over the clocks of the machine."""

    def now(self) -> float:
        """Seconds since the epoch by the system clock, which can be set forwards and backwards."""
        return time.time()  # noqa: TID251 -- this is the one reader the ban points to

    def monotonic(self) -> float:
        """Seconds since boot (CLOCK_BOOTTIME), which cannot be set.

        It counts the time during which the machine was suspended: something trusted for one second must have
        expired when the machine wakes after an hour.
        """
        return time.clock_gettime(time.CLOCK_BOOTTIME)
