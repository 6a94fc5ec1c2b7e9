"""An event loop whose clock the tests own: it jumps to the next timer as soon as nothing else is left to do.

A test on it sleeps and times out in the order that its numbers say, however busy the machine is, and takes no
time. For code that waits for timers, tasks and events of its own loop only: work of a thread or of another
process is nothing that this clock waits for.
"""

from __future__ import annotations

import asyncio
import selectors

import pytest


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would wait for its next timer, its clock is put forward to it instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is left: something outside has to happen, or the test hangs
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time` is its own clock, so sleeps and timeouts of asyncio go by it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def virtual_time():
    """What a module's `anyio_backend` returns to run its tests on such a loop."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def run_in_virtual_time():
    """`asyncio.run` on such a loop."""

    def run(main):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(main)

    return run
