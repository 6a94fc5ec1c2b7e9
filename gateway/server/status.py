"""Combines the status reports of all workers into the status of the whole instance.

A worker reports readiness by name and counters by name. The instance is ready when every worker answers and
every readiness check holds in each. Its counters are sums that include workers that have ended: a counter
that falls because one process was replaced would look like a restart of the instance in a graph. Current
values are sums as well, but for those of which only the largest means something (`LARGEST`).

What a worker counted between its last answer and being killed is lost.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.telemetry import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's report."""

    ready: dict[str, bool]
    counters: dict[str, float]
    gauges: dict[str, float] = msgspec.field(
        default_factory=dict
    )  # current values: they end with their worker


class FleetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of the whole instance."""

    expected: int
    answering: int
    ready: dict[str, bool]
    counters: dict[str, float]
    gauges: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether every worker answers and every readiness check holds."""
        return self.answering == self.expected > 0 and all(self.ready.values())


@dataclass(slots=True)
class Retired:
    """The summed counters of workers that have ended."""

    counters: Counter[str] = field(default_factory=Counter)

    def add(self, status: WorkerStatus | None) -> None:
        """Add what an ended worker had counted, as of its last answer."""
        if status is not None:
            _add_up(self.counters, status.counters)


def combine(
    answers: Iterable[WorkerStatus | None], last_known: Iterable[WorkerStatus | None], retired: Retired
) -> FleetStatus:
    """The status of all workers together. `answers` has a None for each that did not answer in time.

    `last_known` are the latest answers ever received: a worker that is busy now stays in the sums.
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
    gauges: dict[str, float] = {}
    for answer in present:
        if answer is not None:
            for name, value in answer.gauges.items():
                before = gauges.get(name, 0.0)
                gauges[name] = max(before, value) if name in LARGEST else before + value
    return FleetStatus(
        expected=len(present),
        answering=sum(answer is not None for answer in present),
        ready=ready,
        counters=dict(counters),
        gauges=gauges,
    )


def _add_up(total: Counter[str], counters: Mapping[str, float]) -> None:
    for name, value in counters.items():
        total[name] += value  # type: ignore[assignment]  # Counter's annotation says int; floats add as well
