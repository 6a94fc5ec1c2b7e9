"""A circuit breaker for a remote server: it stops requests after repeated failures and tests with one.

Five consecutive failures open the circuit, and so does an explicit request of the provider to slow down
(`trip`). While it is open, requests fail at once. After a pause one trial request is let through and all
others still fail. Each failed trial doubles the pause, up to 30 s; one success closes the circuit. Pauses
have jitter, so that the workers of a fleet do not retry at the same time.

The outcome of a request that began before the circuit opened or closed is ignored: it says nothing about the
time after.

A pure state machine for one process; the clock and the random numbers are passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = 5
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SHORTEST_SHARE = 0.75  # jitter: the actual pause is between 75 % and 100 % of the nominal one


class Circuit:
    """The state of one circuit. `chance` returns a number from 0 to 1."""

    def __init__(self, *, now: Callable[[], float], chance: Callable[[], float]) -> None:
        self._now = now
        self._chance = chance
        self._failures = 0
        self._round = 0  # incremented each time the circuit opens, fails a trial or closes
        self._pause = FIRST_PAUSE_SECONDS
        self._shut_until = float("-inf")
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: all requests but one trial at a time are refused."""
        return self._failures >= FAILURES

    @property
    def may_enter(self) -> bool:
        """Whether a request that begins now would be let through."""
        return not self.is_open or not (self._is_trying or self._now() < self._shut_until)

    def enter(self) -> int | None:
        """Begin a request. Returns a token for reporting its outcome, or None if the request is refused."""
        if not self.may_enter:
            return None
        self._is_trying = self.is_open
        return self._round

    def succeed(self, entered: int) -> None:
        """Report that the request succeeded."""
        if entered != self._round:
            return
        if self.is_open:
            self._round += 1
        self._failures, self._pause, self._is_trying = 0, FIRST_PAUSE_SECONDS, False

    def fail(self, entered: int) -> None:
        """Report that the request failed."""
        if entered != self._round:
            return
        self._failures += 1
        self._is_trying = False
        if self.is_open:
            self._round += 1
            share = SHORTEST_SHARE + (1 - SHORTEST_SHARE) * self._chance()
            self._shut_until = self._now() + self._pause * share
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def trip(self) -> None:
        """Open the circuit at once, unless it is open: the provider asked for fewer requests."""
        if not self.is_open:
            self._failures = FAILURES - 1
            self.fail(self._round)

    def leave(self, entered: int) -> None:
        """Report that the request was abandoned or its outcome says nothing: another trial may run."""
        if entered == self._round:
            self._is_trying = False
