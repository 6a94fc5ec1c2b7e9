"""The lease: for how long this worker may answer from memory without asking.

A renewal asks the server for the global generation. Its answer counts only once every change up to
that generation has been applied here: the answer of a heartbeat alone proves nothing, since it can
overtake an invalidation that was sent before it. What counts then counts from the moment the renewal
was *sent*, on a clock that goes on while the machine sleeps. So when a change was committed at some
moment, a worker that has not applied it holds no lease a lease's length later, whatever became of
it meanwhile: stopped, cut off, or merely slow. That is what the barrier waits for.

A pure state machine: it reads no clock and does no I/O.
"""

from __future__ import annotations

from collections import deque

MAX_PENDING = 16  # renewals whose generation is not yet applied; older ones would expire first anyway


class Lease:
    """One worker's lease."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = float("-inf")
        self.applied = 0
        self.losses = 0
        self._pending: deque[tuple[int, float]] = deque(maxlen=MAX_PENDING)
        self._was_held = False

    def is_held(self, now: float) -> bool:
        """Whether memory may be trusted at this moment."""
        return now < self.until

    def renewed(self, *, sent_at: float, generation: int) -> None:
        """A renewal that was sent then was answered with this generation."""
        self._pending.append((generation, sent_at))
        self._count()

    def apply(self, generation: int) -> None:
        """Every change up to this generation has been applied."""
        self.applied = max(self.applied, generation)
        self._count()

    def restart(self, generation: int) -> None:
        """Memory was flushed and is empty: it stands on nothing older than this generation.

        What was pending belongs to the connection that is gone.
        """
        self._pending.clear()
        self.applied = generation

    def drop(self) -> None:
        """Trust nothing from here on, until a renewal counts again."""
        self._pending.clear()
        self.until = float("-inf")

    def watch(self, now: float) -> bool:
        """Note whether it is held; counts each time it was lost. For the metrics and the audit log."""
        held = self.is_held(now)
        if self._was_held and not held:
            self.losses += 1
        self._was_held = held
        return held

    def _count(self) -> None:
        waiting: deque[tuple[int, float]] = deque(maxlen=MAX_PENDING)
        for generation, sent_at in self._pending:
            if generation <= self.applied:
                self.until = max(self.until, sent_at + self.seconds)
            else:
                waiting.append((generation, sent_at))
        self._pending = waiting
