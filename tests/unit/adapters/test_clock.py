from __future__ import annotations

import time
from datetime import UTC, datetime

from gateway.adapters.clock import SystemClock


def test_now_is_the_machines_time():
    before = datetime.now(UTC).timestamp()
    assert before <= SystemClock().now() <= datetime.now(UTC).timestamp()


def test_the_monotonic_clock_only_goes_forwards_and_keeps_step():
    clock = SystemClock()
    started = clock.monotonic()
    time.sleep(0.01)
    assert 0.01 <= clock.monotonic() - started < 5
