"""A circuit breaker: a provider that does not answer is left alone for a moment, and then tried once.

Five failures in a row open it, and so does its own word that it is asked too much. While it is open
nothing is asked; after a pause, one caller may try, and all others are told at once that nobody can say.
Each failed trial doubles the pause, up to half a minute; one success closes it. Pauses are jittered, so
that the workers of a fleet do not come back together.

What began before it opened says nothing about the time after: such an outcome is passed over.

A pure state machine of one process: the clock and the dice are given to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = 5
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SHORTEST_SHARE = 0.75  # a pause is between three quarters of itself and itself


class Circuit:
    """One way to a provider. `chance` gives a number from 0 to 1."""

    def __init__(self, *, now: Callable[[], float], chance: Callable[[], float]) -> None:
        self._now = now
        self._chance = chance
        self._failures = 0
        self._round = 0  # counts how often it opened or closed
        self._pause = FIRST_PAUSE_SECONDS
        self._shut_until = float("-inf")
        self._is_trying = False

    @property
    def is_open(self) -> bool:
        """Whether requests are turned away, but for one trial at a time."""
        return self._failures >= FAILURES

    def enter(self) -> int | None:
        """Begin a request: what to say its outcome with. None turns it away."""
        if self.is_open:
            if self._is_trying or self._now() < self._shut_until:
                return None
            self._is_trying = True
        return self._round

    def succeed(self, entered: int) -> None:
        """It was answered."""
        if entered != self._round:
            return
        if self.is_open:
            self._round += 1
        self._failures, self._pause, self._is_trying = 0, FIRST_PAUSE_SECONDS, False

    def fail(self, entered: int) -> None:
        """It was not."""
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
        """It asked to be left alone: open at once, if it is not open."""
        if not self.is_open:
            self._failures = FAILURES - 1
            self.fail(self._round)

    def leave(self, entered: int) -> None:
        """It was given up, or its outcome says nothing: another one may try."""
        if entered == self._round:
            self._is_trying = False
