"""Interleaved rounds: each round measures every contender once, and the order rotates by one each time.

Other load on the machine then affects all of them. A ratio is taken within a round, of measurements that are
seconds apart, and the figure is the median of the rounds; minimum and maximum are reported beside it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from puller import NotServingError, pull, pulling
from report import console
from wrk import send_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from client_requests import RequestSet
    from contender import Contender
    from equipment import Equipment
    from puller import Pulled
    from report import Report
    from workload import Ask, Workload
    from wrk import Reads

Turn = TypeVar("Turn")
REPEATS = 2  # of a turn in which a server did not serve
PARALLEL_RANGES, PARALLEL_OF_A_PACKAGE, PARALLEL_LARGE = 8, 64, 4


@dataclass(frozen=True)
class Mixed:
    """Small reads while large ones run, and how fast those were meanwhile."""

    reads: Reads
    gb_per_second: float


@dataclass
class Rounds(Generic[Turn]):
    """What was measured of each contender, one turn after the other."""

    runs: dict[str, list[Turn]] = field(default_factory=dict)

    def values(self, name: str, of: Callable[[Turn], float]) -> list[float]:
        return [of(turn) for turn in self.runs[name]]

    def ratios(self, ours: str, theirs: str, of: Callable[[Turn], float]) -> list[float]:
        """Ours over theirs, round by round."""
        pairs = zip(self.values(ours, of), self.values(theirs, of), strict=True)
        return [mine / other for mine, other in pairs]


def rotated(contenders: Sequence[Contender], rounds: int) -> Iterator[Contender]:
    """Whose turn it is, through all rounds."""
    for number in range(rounds):
        start = number % len(contenders)
        yield from (*contenders[start:], *contenders[:start])


def in_rounds(
    contenders: Sequence[Contender],
    rounds: int,
    take: Callable[[Contender], Turn],
    advance: Callable[[], None],
    *,
    is_warmed: bool,
) -> Rounds[Turn]:
    """Every contender's turn in each round; with `is_warmed`, after a round that does not count."""
    found: Rounds[Turn] = Rounds({one.name: [] for one in contenders})
    for contender in contenders if is_warmed else ():
        _taken(take, contender)
        advance()
    for contender in rotated(contenders, rounds):
        found.runs[contender.name].append(_taken(take, contender))
        advance()
    return found


def _taken(take: Callable[[Contender], Turn], contender: Contender) -> Turn:
    """A turn; taken again where other work kept the server from running so long that it did not serve."""
    for _ in range(REPEATS):
        try:
            return take(contender)
        except NotServingError as error:
            console.print(f"{contender.title}: {error}; once more")
    return take(contender)


@dataclass(frozen=True)
class ContenderRuns:
    """The measurements of one contender in one round."""

    equipment: Equipment
    workload: Workload
    seconds: float  # of small requests
    repeats: int  # of large ones, since the kernel counts time in steps of 10 ms

    def small(self, contender: Contender, sent: RequestSet) -> Reads:
        return send_requests(self.equipment, contender, sent, self.seconds)

    def large(self, contender: Contender) -> Pulled:
        """The whole file on one connection."""
        return _sum([pull(contender, [self.workload.whole()]) for _ in range(self.repeats)])

    def ranges(self, contender: Contender) -> Pulled:
        """Eight ranges at once, each on a connection of its own, then the next eight."""
        return self._pull_batches(contender, self.workload.ranges(), PARALLEL_RANGES)

    def package_ranges(self, contender: Contender) -> Pulled:
        """All 64 ranges of a package of eight files at once, as the engine downloads one."""
        return self._pull_batches(contender, self.workload.part_ranges(), PARALLEL_OF_A_PACKAGE)

    def mixed(self, contender: Contender, sent: RequestSet) -> Mixed:
        asks = [self.workload.whole()] * PARALLEL_LARGE
        with pulling(contender, asks) as count:
            time.sleep(0.1)
            before, started = count(), time.monotonic()
            reads = self.small(contender, sent)
            return Mixed(reads, (count() - before) / (time.monotonic() - started) / 1e9)

    def _pull_batches(self, contender: Contender, asks: Sequence[Ask], count: int) -> Pulled:
        batches = [asks[at : at + count] for at in range(0, len(asks), count)]
        return _sum([pull(contender, batch) for _ in range(self.repeats) for batch in batches])


def add_row(report: Report, name: str, values: Sequence[float], what: str, **more: Any) -> None:
    """The median of some rounds, with the least and the most."""
    _add(report, name, values, what, **more)


def add_figure(report: Report, name: str, values: Sequence[float], target: float, what: str) -> None:
    """The same, as one of the figures."""
    report.figures[name] = _add(report, name, values, what, target=target, is_figure=True)


def _add(report: Report, name: str, values: Sequence[float], what: str, **more: Any) -> float:
    value, least, most = (round(one, 4) for one in (median(values), min(values), max(values)))
    spread = f"{least:,g} to {most:,g} in {len(values)} rounds" if len(values) > 1 else "one round"
    row = {"name": name, "value": value, "what": f"{what}; {spread}", "min": least, "max": most}
    report.rows.append(row | more)
    return value


def _sum(pulled: Sequence[Pulled]) -> Pulled:
    kind = type(pulled[0])
    return kind(
        sum(one.count for one in pulled),
        sum(one.seconds for one in pulled),
        sum(one.cpu_seconds for one in pulled),
    )
