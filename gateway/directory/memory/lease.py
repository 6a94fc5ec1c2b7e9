"""The lease: how long this worker may answer from memory without asking Redis.

A renewal asks the server for the global generation. The reply counts only once every change up to that
generation has been applied here: a heartbeat alone proves nothing, since its reply can overtake an
invalidation that was sent before it. The lease runs from the moment the renewal was *sent*, on a clock that
includes suspended time. So a worker that has not applied a change holds no lease one lease length after the
change was committed, even if the worker was stopped, disconnected or slow. The barrier waits for this.

A pure state machine: it reads no clock and does no I/O.
"""

from __future__ import annotations

from collections import deque

MAX_PENDING = 16  # renewals whose generation is not applied yet; older ones expire first


class Lease:
    """The lease of one worker."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = float("-inf")
        self.applied = 0
        self.losses = 0
        self._pending: deque[tuple[int, float]] = deque(maxlen=MAX_PENDING)
        self._was_held = False

    def is_held(self, now: float) -> bool:
        """Whether memory may be trusted at this time."""
        return now < self.until

    def renewed(self, *, sent_at: float, generation: int) -> None:
        """A renewal sent at this time was answered with this generation."""
        self._pending.append((generation, sent_at))
        self._count()

    def apply(self, generation: int) -> None:
        """Every change up to this generation has been applied."""
        self.applied = max(self.applied, generation)
        self._count()

    def restart(self, generation: int) -> None:
        """The memory is empty, so it depends on nothing older than this generation.

        Pending renewals belong to the connection that is gone.
        """
        self._pending.clear()
        self.applied = generation

    def drop(self) -> None:
        """End the lease now, until another renewal counts."""
        self._pending.clear()
        self.until = float("-inf")

    def watch(self, now: float) -> bool:
        """Record whether the lease is held and count each loss, for the metrics and the audit log."""
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
