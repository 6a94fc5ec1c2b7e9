"""Periods: from when and until when a grant or a publication counts, checked at each use.

Nobody sets a flag when a period begins or ends, and no change of facts happens then. So an answer that stands
on a record with periods has a leaf (`PeriodLeaf`) that is current only between the two moments at which the
record says something else: the last one before the answer was computed, and the next one. Every check of a
stamp, the last one before the first byte included, checks the clock by it.

The clock may be set back while we run. So, as for keys, an end is checked against the latest time that was
seen, and a beginning against the present one; a clock that shows no finite time is within no period.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from gateway.model.stamps import LEAF_BYTES, Leaf

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.clocks import Clock

T = TypeVar("T")

NEVER = math.nan
"""A time that is within no period that has a beginning or an end."""


class PeriodState(StrEnum):
    """Whether something counts at a given time."""

    IN_FORCE = "in-force"
    NOT_YET = "not-yet"
    ENDED = "ended"


def state_text(state: PeriodState) -> str:
    """Return the state for people."""
    return {
        PeriodState.IN_FORCE: "in force",
        PeriodState.NOT_YET: "not begun",
        PeriodState.ENDED: "ended",
    }[state]


class PeriodClock:
    """A clock, and the latest time that it has shown."""

    __slots__ = ("_clock", "latest")

    def __init__(self, clock: Clock | None) -> None:
        """Without a clock, nothing that begins or ends is in force."""
        self._clock = clock
        self.latest = -math.inf

    def now(self) -> float:
        """Seconds since the epoch; `NEVER` where the clock shows no finite time."""
        now = NEVER if self._clock is None else self._clock.now()
        if not math.isfinite(now):
            return NEVER
        self.latest = max(self.latest, now)
        return now


def state_at(
    not_before: float | None, expires_at: float | None, now: float, latest: float | None = None
) -> PeriodState:
    """The state at a time. `latest` is the latest time that was seen, where that may be another one."""
    latest = now if latest is None or math.isnan(now) else latest
    if expires_at is not None and not latest < expires_at:
        return PeriodState.ENDED
    if not_before is not None and not not_before <= now:
        return PeriodState.NOT_YET
    return PeriodState.IN_FORCE


class HasPeriod(Protocol):
    """Something that may begin and end."""

    @property
    def not_before(self) -> float | None:
        """When it begins; None: it has begun."""

    @property
    def expires_at(self) -> float | None:
        """When it ends; None: never."""


def period_text(one: HasPeriod) -> str:
    """Return the period for people, to the second; empty where it has neither beginning nor end."""
    said = [("from", one.not_before), ("until", one.expires_at)]
    return " ".join(f"{word} {moment_text(time)}" for word, time in said if time is not None)


def moment_text(time: float) -> str:
    """Return a time for people and documents: RFC 3339 in UTC, with a fraction only where there is one."""
    try:
        text = datetime.fromtimestamp(time, UTC).isoformat(timespec="auto")
    except (OverflowError, ValueError, OSError):  # a record may hold any finite number
        return f"{time:g} seconds after 1970"
    return text.replace("+00:00", "Z")


class Span(msgspec.Struct, frozen=True, gc=False):
    """While nothing that a record says begins or ends: times of the clock, and of the latest one seen."""

    since: float
    until: float
    until_latest: float

    @classmethod
    def around(
        cls, begins: Iterable[float | None], ends: Iterable[float | None], now: float, latest: float
    ) -> Span:
        """Return the span around a time, between these beginnings and ends."""
        begun = [time for time in begins if time is not None]
        return cls(
            since=max((time for time in begun if time <= now), default=-math.inf),
            until=min((time for time in begun if not time <= now), default=math.inf),
            until_latest=min((time for time in ends if time is not None and latest < time), default=math.inf),
        )

    def holds(self, now: float, latest: float) -> bool:
        """Whether it is that span still."""
        return self.since <= now < self.until and latest < self.until_latest


class PeriodLeaf(Leaf, Generic[T]):
    """The record `inner`, and what it says between two times. Once over, it stays so."""

    __slots__ = ("_clock", "_inner", "_is_over", "_span", "said")

    ends_by_time = True

    def __init__(self, inner: Leaf, said: T, span: Span, clock: PeriodClock) -> None:
        self.said = said
        self._inner = inner
        self._span = span
        self._clock = clock
        self._is_over = False
        super().__init__(inner.name, inner.value)
        self.held_bytes = LEAF_BYTES + inner.held_bytes

    @property
    def is_current(self) -> bool:
        """Whether the record has not changed, and says the same as when it was read."""
        if not self._is_over:
            now = self._clock.now()
            self._is_over = not (self._inner.is_current and self._span.holds(now, self._clock.latest))
        return not self._is_over

    @is_current.setter
    def is_current(self, value: bool) -> None:
        self._is_over = self._is_over or not value
