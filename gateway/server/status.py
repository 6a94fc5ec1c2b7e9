"""What the workers say about themselves, and what that makes of the whole instance.

A worker reports readiness by name and counters by name. The instance is ready when every worker
answers and is ready in every respect; its counters are the sums, with those of workers that are
gone kept in: a counter that falls because a process was replaced would look like a restart of
everything to whoever draws the graph.

What a worker counted between its last answer and a violent death is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker's answer."""

    ready: dict[str, bool]
    counters: dict[str, float]
    gauges: dict[str, float] = field(default_factory=dict)  # values of the moment: gone with their worker


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """The whole instance."""

    expected: int
    answering: int
    ready: dict[str, bool]
    counters: dict[str, float]
    gauges: dict[str, float] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether every worker answers and is ready in every respect."""
        return self.answering == self.expected > 0 and all(self.ready.values())


@dataclass(slots=True)
class Retired:
    """The counters of workers that are gone."""

    counters: Counter[str] = field(default_factory=Counter)

    def add(self, status: WorkerStatus | None) -> None:
        """Keep what a worker that is gone had counted, as of its last answer."""
        if status is not None:
            _add_up(self.counters, status.counters)


def combine(
    answers: Iterable[WorkerStatus | None], last_known: Iterable[WorkerStatus | None], retired: Retired
) -> FleetStatus:
    """All workers together. `answers` has a None for each that did not answer in time.

    `last_known` are the latest answers ever: a worker that is busy just now has not uncounted anything.
    """
    present = list(answers)
    ready: dict[str, bool] = {}
    for answer in present:
        if answer is not None:
            for name, is_ready in answer.ready.items():
                ready[name] = ready.get(name, True) and is_ready
    counters = Counter(retired.counters)
    for status in last_known:
        if status is not None:
            _add_up(counters, status.counters)
    gauges: Counter[str] = Counter()
    for answer in present:
        if answer is not None:
            _add_up(gauges, answer.gauges)
    return FleetStatus(
        expected=len(present),
        answering=sum(answer is not None for answer in present),
        ready=ready,
        counters=dict(counters),
        gauges=dict(gauges),
    )


def _add_up(total: Counter[str], counters: Mapping[str, float]) -> None:
    for name, value in counters.items():
        total[name] += value  # type: ignore[assignment]  # Counter's annotation says int; floats add as well
