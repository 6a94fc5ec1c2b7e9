"""Measure files on this node, off the event loop, once for each file however many callers ask.

From memory, else from what this node measured before, else by reading the file. One process at a time reads
it; the others poll until it has finished. There are two threads: a file that can be hashed within the timeout
of a request never waits behind a larger one.

Non-goals: what follows from the result (`checks.py`), and finding blobs to measure (`ahead.py`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.pins import identity_of
from gateway.pinning.hashing import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.adapters.measurement_file import MeasurementFile
    from gateway.model.pins import Measured, StatIdentity

LARGE_BYTES = 256 << 20  # about half a second of one core
# results in a worker's memory, some 16,000. Others are read from this node's file.
REMEMBERED_BYTES = 13 << 20
MEASURED_BYTES = 500  # of a result and its identity: measured, rounded up
TURN_SECONDS = 0.05  # how often a caller that waits for another process checks whether it has finished


@dataclass(slots=True)
class MeasuringCounts:
    """Counters for the metrics."""

    files: int = 0
    bytes: int = 0


class Measurer:
    """Measures open files for one worker or command."""

    def __init__(self, measurements: MeasurementFile) -> None:
        self.counts = MeasuringCounts()
        self._measurements = measurements
        self._remembered: BoundedMemory[StatIdentity, Measured] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES, weigh=lambda _identity, _measured: MEASURED_BYTES
        )
        self._awaited: set[StatIdentity] = set()
        self._small = ThreadPoolExecutor(1, "measure-small")
        self._large = ThreadPoolExecutor(1, "measure-large")
        self._counting = threading.Lock()
        self._is_stopped = False

    def recall(self, identity: StatIdentity) -> Measured | None:
        """The result in memory for this very file."""
        return self._remembered.peek(identity)  # every read of a file comes here

    async def measure(self, descriptor: int) -> Measured | None:
        """Measure an open file; None when it changed meanwhile. The caller keeps and closes the descriptor.

        Raises `Unavailable` when the file cannot be read, or the state folder cannot be used.
        """
        identity = identity_of(os.fstat(descriptor))
        threads = self._large if identity[2] > LARGE_BYTES else self._small
        loop = asyncio.get_running_loop()
        try:
            while not self._is_stopped:
                is_my_turn, measured = await loop.run_in_executor(threads, self.measure_here, descriptor)
                if is_my_turn:
                    if measured is not None:
                        self.remember(measured)
                    return measured
                self._awaited.add(identity)
                await asyncio.sleep(TURN_SECONDS)
        finally:  # in every case: no request waits for it here any more
            self._awaited.discard(identity)
        return None

    def is_awaited(self, identity: StatIdentity) -> bool:
        """Whether a request waits for a file that this process measures in the background."""
        return identity in self._awaited

    def measure_here(
        self, descriptor: int, keep_going: Callable[[int], bool] = lambda _step: True
    ) -> tuple[bool, Measured | None]:
        """Measure it in this thread. False: another process is measuring it, call again."""
        identity = identity_of(os.fstat(descriptor))
        known = self._measurements.find(identity)
        if known is not None:
            return True, known
        with self._measurements.turn(identity) as is_my_turn:
            if not is_my_turn:
                return False, None
            measured = self._measurements.find(identity)  # measured by the process that held the lock before
            if measured is None:
                measured = measure(
                    descriptor, keep_going=lambda step: self._goes_on(step) and keep_going(step)
                )
                if measured is not None:
                    with self._counting:
                        self.counts.files += 1
                    self._measurements.put(measured)
            return True, measured

    async def note(self, measured: Measured) -> None:
        """Store a result of a caller that had to read the file anyway."""
        self.remember(measured)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._small, self._measurements.put, measured)

    def remember(self, measured: Measured) -> None:
        """Keep it in memory. Only on the event loop."""
        self._remembered.put(measured.identity, measured)

    @property
    def is_stopped(self) -> bool:
        """Whether measuring has been stopped."""
        return self._is_stopped

    def stop(self) -> None:
        """Stop measurements under way at their next step, and begin no new ones."""
        self._is_stopped = True

    def close(self) -> None:
        """Like `stop`, and wait for it."""
        self.stop()
        for threads in (self._small, self._large):
            threads.shutdown(wait=True, cancel_futures=True)
        self._measurements.close()

    def _goes_on(self, step: int) -> bool:
        with self._counting:
            self.counts.bytes += step
        return not self._is_stopped
