"""The system clock: the only module that reads time. All other code gets `now` passed in."""

from __future__ import annotations

import time
from functools import partial


class SystemClock:
    """`Clock` of `model/ports`, over the clocks of the machine: C's own functions, without a call between."""

    now = staticmethod(time.time)  # noqa: TID251 -- this is the one reader the ban points to
    """Seconds since the epoch by the system clock, which can be set forwards and backwards."""

    monotonic = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))
    """Seconds since boot, which cannot be set.

    It counts the time during which the machine was suspended: something trusted for one second must have
    expired when the machine wakes after an hour.
    """
