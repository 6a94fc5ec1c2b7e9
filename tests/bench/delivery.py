"""How fast files are sent, at what cost: `.venv/bin/python tests/bench/delivery.py [--quick] [--json FILE]`.

Small reads, large ones, ranges and all of it at once, with the guard on and every read recorded, compared
with what people put in front of files today. Every server runs on one core and the load on another. It starts
all servers itself and leaves only a cache folder with the rivals' programs. `--quick` ends within a minute:
fewer and shorter rounds, and without the rivals that no figure needs. `--svg FILE` draws the result.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delivery_report import Findings, report_findings, write_svg
from downloads import Watched
from equipment import equip
from installation import Installation
from ours import furnish, serving_ours, worker_pids
from processes import CORES, LOAD_CORE, memory_mb, move, on_cores
from program import arguments_of, run
from report import Report, console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rivals import serving_rivals
from rounds import ContenderRuns, Rounds, Turn, in_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contender import Contender, Workload
    from downloads import Downloads
    from equipment import Equipment
    from wrk import Reads

DOWNLOADS = 1_000
MANY_WORKERS = 4
ARE_MEASURED_ON_LARGE = ("cachegate", "nginx_static", "nginx_auth_request", "fastapi_dependency")
ARE_MEASURED_ON_MIXED = ("cachegate", "nginx_static", "nginx_auth_request")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: int  # of small reads, in each turn
    repeats: int  # of a gigabyte, in each turn
    thousands: int  # of a thousand downloads, after the first
    is_complete: bool  # with the rivals that no figure needs, and with a first round that does not count

    def all_rounds(
        self, contenders: Sequence[Contender], take: Callable[[Contender], Turn], advance: Callable[[], None]
    ) -> Rounds[Turn]:
        return in_rounds(contenders, self.rounds, take, advance, is_warmed=self.is_complete)

    def steps(self) -> int:
        """How often the progress bar moves."""
        contenders, large, mixed = (7, 4, 3) if self.is_complete else (4, 3, 3)
        runs = contenders + 2 * large + mixed + 2
        return 2 + contenders + 1 + self.thousands + (self.rounds + self.is_complete) * runs


FULL = Size(rounds=7, seconds=3, repeats=4, thousands=5, is_complete=True)
QUICK = Size(rounds=2, seconds=1, repeats=1, thousands=1, is_complete=False)


def measure(size: Size, advance: Callable[[str], None]) -> tuple[Findings, dict[str, str]]:
    """Everything, in an order that keeps one thing out of the way of another."""
    equipment = equip()
    os.sched_setaffinity(0, (LOAD_CORE,))
    with Installation.made() as installation:
        advance("writing the files")
        workload = asyncio.run(furnish(installation))
        advance("starting the servers")
        with (
            serving_ours(installation, workload) as ours,
            serving_rivals(
                equipment, installation.folder / "rivals", workload, with_all=size.is_complete
            ) as rivals,
        ):
            findings = _measure_contenders(size, advance, equipment, workload, installation, [ours, *rivals])
            findings.workers = _measure_workers(size, advance, equipment, ours, workload)
    return findings, equipment.versions()


def _measure_contenders(
    size: Size,
    advance: Callable[[str], None],
    equipment: Equipment,
    workload: Workload,
    installation: Installation,
    contenders: Sequence[Contender],
) -> Findings:
    [worker] = worker_pids(contenders[0])
    idle_mb = memory_mb(worker)
    for contender in contenders:
        advance("checking answers")
        contender.verify_answers(workload, with_large=contender.name in ARE_MEASURED_ON_LARGE)
    # Before the small reads: their records would be gigabytes to look through.
    watched = Watched(worker, contenders[0].port, installation.settings.audit_folder)
    thousands: list[Downloads] = []
    for _ in range(1 + size.thousands):
        advance("a thousand downloads")
        thousands.append(watched.hold(workload, DOWNLOADS))
    runs = ContenderRuns(equipment, workload, size.seconds, size.repeats)
    large = [one for one in contenders if one.name in ARE_MEASURED_ON_LARGE]
    mixed = [one for one in contenders if one.name in ARE_MEASURED_ON_MIXED]
    return Findings(
        titles={one.name: one.title for one in contenders},
        idle_mb=idle_mb,
        thousands=thousands,
        small=size.all_rounds(contenders, runs.small, lambda: advance("small reads")),
        large=size.all_rounds(large, runs.large, lambda: advance("large reads")),
        ranges=size.all_rounds(large, runs.ranges, lambda: advance("ranges")),
        mixed=size.all_rounds(mixed, runs.mixed, lambda: advance("small reads beside large ones")),
    )


def _measure_workers(
    size: Size, advance: Callable[[str], None], equipment: Equipment, one: Contender, workload: Workload
) -> Rounds[Reads]:
    """One worker and four, each on all cores together with the load, as on a machine that serves."""
    with Installation.made() as installation:
        small = asyncio.run(furnish(installation, large_bytes=1_000_000))
        with serving_ours(installation, small, workers=MANY_WORKERS) as many, on_cores(*CORES):
            move((*one.roots, *many.roots), CORES)
            named = [one, many.renamed("cachegate_workers")]
            workloads = {one.name: workload, named[1].name: small}

            def take(contender: Contender) -> Reads:
                return ContenderRuns(equipment, workloads[contender.name], size.seconds, 1).small(contender)

            return size.all_rounds(named, take, lambda: advance("four workers"))


def main() -> int:
    """Measure, print, write, draw."""
    parser = arguments_of(str(__doc__), "fewer and shorter rounds")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the result there")
    chosen = parser.parse_args()
    size = QUICK if chosen.quick else FULL
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))

    found: list[Findings] = []

    def measured(report: Report) -> None:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("equipment", total=size.steps())
            findings, versions = measure(
                size, lambda what: progress.update(task, description=what, advance=1)
            )
        report_findings(report, findings)
        report.machine |= versions
        found.append(findings)

    def draw(report: Report) -> None:
        if chosen.svg is not None:
            write_svg(chosen.svg, report, *found)

    return run("Delivery", measured, chosen, draw=draw)


if __name__ == "__main__":
    sys.exit(main())
