from __future__ import annotations

import subprocess
import time

from gateway.adapters.clock import SystemClock


def test_now_is_the_machines_time():
    told = subprocess.run(["date", "+%s"], capture_output=True, check=True, text=True).stdout
    assert 0 <= SystemClock().now() - int(told) < 30


def test_the_monotonic_clock_only_goes_forwards_and_keeps_step():
    clock = SystemClock()
    started = clock.monotonic()
    time.sleep(0.01)
    assert clock.monotonic() - started >= 0.01
