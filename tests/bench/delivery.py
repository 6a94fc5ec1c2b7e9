"""How fast requests are answered: `.venv/bin/python tests/bench/delivery.py [--quick] [--json FILE]`.

What clients really send (`client_requests.py`): many tenants, keys and files, other headers and another trace
each time, ranges, links, listings, refusals; then large files, ranges of them, and all of it at once. The
guard is on and every request is recorded. Each is compared with what people put in front of files today.
Every server runs on one core and the load on another. It starts all servers itself and leaves only a cache
folder with the rivals' programs.

`--quick` ends within a minute: fewer and shorter rounds, and without the rivals that no figure needs.
`--only varied,range` measures these alone, and `--rounds N --seconds S` so often and so long; `--list` says
which there are. `--stages` says where a worker's time goes, instead of comparing it (`stages.py`), and
`--in-process` what a request costs without sockets and other processes (`in_process.py`).
`--svg FILE` draws the result.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from client_requests import REQUESTS, request_sets, unguarded_requests, varied
from delivery_report import Findings, report_findings, write_svg
from downloads import Watched
from equipment import equip
from in_process import measure_in_process
from installation import Installation
from ours import SETTINGS, Sizes, furnish, serving_ours, worker_pids
from processes import CORES, LOAD_CORE, move, on_cores
from program import amount_of, arguments_of, run
from report import Report, console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rivals import REFUSALS, serving_rivals, verify_same_headers
from rounds import ContenderRuns, Rounds, Turn, in_rounds
from stages import measure_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client_requests import RequestSet
    from contender import Contender
    from equipment import Equipment
    from workload import Workload
    from wrk import Reads

    Advance = Callable[[str], None]

MANY_WORKERS = 4
OURS = "cachegate"
READS = ("varied", "traced", "head", "range", "link")
ANSWERS = (
    *("conditional", "blob", "listing", "models", "whoami", "weights", "stat"),
    *("hidden", "absent", "unknown_key", "no_key", "no_route", "scan"),
)
LARGE = ("large", "ranges", "package_ranges")
ALL = (*READS, *ANSWERS, *LARGE, "mixed", "workers", "memory")
STAGES_OF = ("varied", "traced", "range", "hidden")  # unless others are named
IN_PROCESS = ("varied", "traced", "range", "no_route", "ranges", "large")
NGINX, STATIC, HOSTED, DEPENDENCY = "nginx_auth_request", "nginx_static", "hosted_shape", "fastapi_dependency"
SAMPLE_STEP = 10  # where not all answers are checked before they are measured
SMALL_SIZES = Sizes(large=64 << 20)  # where no large file is measured


@dataclass(frozen=True)
class Plan:
    """What is measured, how often and how long."""

    rounds: int
    seconds: float  # of small requests, in each turn
    repeats: int  # of a gigabyte, in each turn
    thousands: int  # of a thousand downloads, after the first
    sizes: Sizes
    is_complete: bool  # with the rivals that no figure needs, and with a first round that does not count
    downloads: int = 1_000
    names: tuple[str, ...] = ALL

    def contenders(self, name: str) -> tuple[str, ...]:
        """Who is measured on this, ours first."""
        more = self.is_complete
        if name == "varied":
            others = ("nginx_open_file_cache", "caddy_forward_auth", DEPENDENCY) if more else ()
            return (OURS, NGINX, STATIC, HOSTED, *others)
        if name in READS:
            return (OURS, NGINX, STATIC, HOSTED, DEPENDENCY) if more else (OURS, NGINX)
        if name in ANSWERS:
            return (OURS, HOSTED, DEPENDENCY) if more else (OURS, HOSTED)
        if name in LARGE:
            return (OURS, STATIC, NGINX, DEPENDENCY) if more else (OURS, STATIC)
        if name == "mixed":
            return (OURS, STATIC, NGINX) if more else (OURS, STATIC)
        return (OURS,)

    def has(self, *names: str) -> bool:
        return any(name in self.names for name in names)

    def step(self, name: str) -> int:
        """Of how many of our answers one is checked: all where they are what a guard in Python answers."""
        is_all = self.is_complete or not {HOSTED, DEPENDENCY}.isdisjoint(self.contenders(name))
        return 1 if is_all else SAMPLE_STEP

    def rounds_of(
        self, contenders: Sequence[Contender], take: Callable[[Contender], Turn], advance: Callable[[], None]
    ) -> Rounds[Turn]:
        return in_rounds(contenders, self.rounds, take, advance, is_warmed=self.is_complete)

    def steps(self) -> int:
        """How often the progress bar moves."""
        turns = sum(len(self.contenders(name)) for name in self.names if name not in {"workers", "memory"})
        turns += 2 * self.has("workers")
        return 4 + (self.rounds + self.is_complete) * turns + (1 + self.thousands) * self.has("memory")


FULL = Plan(rounds=7, seconds=2, repeats=4, thousands=5, sizes=Sizes(part=128 << 20), is_complete=True)
QUICK = Plan(
    rounds=1,
    seconds=0.4,
    repeats=1,
    thousands=1,
    sizes=Sizes(large=400_000_000, part=32 << 20),
    is_complete=False,
)
SMOKE = replace(QUICK, seconds=0.1, sizes=Sizes(large=256 << 20, part=16 << 20), downloads=50)


def measure(plan: Plan, advance: Advance) -> tuple[Findings, dict[str, str]]:
    """All of the plan, in an order that keeps one thing out of the way of another."""
    equipment = equip()
    os.sched_setaffinity(0, (LOAD_CORE,))
    sizes = plan.sizes if plan.has(*LARGE, "mixed", "memory") else SMALL_SIZES
    with Installation.made(**SETTINGS) as installation:
        advance("writing the files")
        furnished = asyncio.run(furnish(installation, sizes))
        advance("starting the servers")
        with serving_ours(installation, furnished) as serving:
            ours, workload = serving.contender, serving.workload
            every = request_sets(workload)
            needed = {"varied"} if plan.has("mixed", "workers") else set[str]()
            sets = {name: one for name, one in every.items() if plan.has(name) or name in needed}
            advance("checking our answers")
            answered = {
                name: ours.verify(one, step=plan.step(name) if name in sets else len(one.requests))
                for name, one in every.items()
                if name in sets or name in REFUSALS
            }
            named = {name for one in plan.names for name in plan.contenders(one)}
            rivals = installation.folder / "rivals"
            with serving_rivals(equipment, rivals, workload, named, answered) as started:
                advance("checking the rivals' answers")
                contenders = {one.name: one for one in (ours, *started)}
                measured = _Measured(plan, advance, equipment, workload, sets, contenders)
                measured.verify()
                findings = measured.all(installation)
            findings.idle_mb = serving.idle_mb if plan.has("memory") else None
            if plan.has("workers"):
                findings.workers = _measure_workers(plan, advance, equipment, ours, sets["varied"])
    return findings, equipment.versions()


@dataclass(frozen=True)
class _Measured:
    """The measurements on one installation and its rivals."""

    plan: Plan
    advance: Advance
    equipment: Equipment
    workload: Workload
    sets: dict[str, RequestSet]
    contenders: dict[str, Contender]

    def verify(self) -> None:
        """The answers that are measured, of everyone who is measured with them. It also warms them up."""
        refused = unguarded_requests(self.workload)
        for name, one in self.contenders.items():
            for sent in self.sets.values() if name != OURS else ():  # ours are checked already
                if name in self.plan.contenders(sent.name):
                    one.verify(sent, step=1 if self.plan.is_complete else SAMPLE_STEP)
            if any(name in self.plan.contenders(kind) for kind in LARGE if self.plan.has(kind)):
                one.verify_large(self.workload, REQUESTS)
            if one.is_guarded:
                one.verify_refusals(refused)
        for name in (HOSTED, DEPENDENCY):
            if name in self.contenders:
                verify_same_headers(self.contenders[OURS], self.contenders[name], self.sets.values())

    def all(self, installation: Installation) -> Findings:
        """What the plan names."""
        plan, advance = self.plan, self.advance
        runs = ContenderRuns(self.equipment, self.workload, plan.seconds, plan.repeats)
        findings = Findings(titles={one.name: one.title for one in self.contenders.values()})
        if plan.has("memory"):
            # Before the small requests: their records would be gigabytes to look through.
            [worker] = worker_pids(self.contenders[OURS])
            watched = Watched(worker, self.contenders[OURS].port, installation.settings.audit_folder)
            for _ in range(1 + plan.thousands):
                advance("a thousand downloads")
                findings.thousands.append(watched.hold(self.workload, plan.downloads))
        for name, sent in self.sets.items():
            if not plan.has(name):
                continue
            findings.set_titles[name] = sent.title
            findings.small[name] = self._in_rounds(name, lambda one, sent=sent: runs.small(one, sent))
        for name, take in zip(LARGE, (runs.large, runs.ranges, runs.package_ranges), strict=True):
            if plan.has(name):
                findings.large[name] = self._in_rounds(name, take)
        if plan.has("mixed"):
            sent = self.sets["varied"]
            findings.mixed = self._in_rounds("mixed", lambda one: runs.mixed(one, sent))
        return findings

    def _in_rounds(self, name: str, take: Callable[[Contender], Turn]) -> Rounds[Turn]:
        contenders = [self.contenders[one] for one in self.plan.contenders(name)]
        return self.plan.rounds_of(contenders, take, lambda: self.advance(name))


def _measure_workers(
    plan: Plan, advance: Advance, equipment: Equipment, one: Contender, sent: RequestSet
) -> Rounds[Reads]:
    """One worker and four, each on all cores together with the load, as on a machine that serves."""
    with Installation.made(**SETTINGS) as installation:
        furnished = asyncio.run(furnish(installation, SMALL_SIZES))
        with (
            serving_ours(installation, furnished, workers=MANY_WORKERS) as serving,
            on_cores(*CORES),
        ):
            many, workload = serving.contender, serving.workload
            move((*one.roots, *many.roots), CORES)
            named = [one, many.renamed("cachegate_workers")]
            sets = {one.name: sent, named[1].name: varied(workload)}
            runs = ContenderRuns(equipment, workload, plan.seconds, 1)
            return plan.rounds_of(
                named, lambda which: runs.small(which, sets[which.name]), lambda: advance("four workers")
            )


def _arguments() -> argparse.ArgumentParser:
    parser = arguments_of(str(__doc__), "fewer and shorter rounds")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the result there")
    parser.add_argument("--only", type=_names, metavar="NAMES", help="measure these, separated by commas")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds")
    parser.add_argument("--seconds", type=float, metavar="S", help="so long in each turn of small requests")
    parser.add_argument("--stages", action="store_true", help="where the time of a worker goes")
    parser.add_argument(
        "--in-process", action="store_true", help="what a request costs, without sockets: a worker in here"
    )
    parser.add_argument("--list", action="store_true", help="print the names and end")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in ALL]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not among {', '.join(ALL)}")
    return names


def _plan(chosen: argparse.Namespace) -> Plan:
    plan = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    if chosen.only:
        plan = replace(plan, names=chosen.only, is_complete=False)
    return replace(plan, rounds=chosen.rounds or plan.rounds, seconds=chosen.seconds or plan.seconds)


def main() -> int:
    """Measure, print, write, draw."""
    chosen = _arguments().parse_args()
    if chosen.list:
        print(" ".join(ALL))
        return 0
    plan = _plan(chosen)
    if chosen.in_process:
        names = chosen.only or IN_PROCESS
        return run("In process", lambda report: measure_in_process(report, names), chosen)
    if chosen.stages:
        names = chosen.only or STAGES_OF
        return run("Stages", lambda report: measure_stages(report, names, plan.seconds), chosen)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    found: list[Findings] = []

    def measured(report: Report) -> None:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("equipment", total=plan.steps())
            findings, versions = measure(
                plan, lambda what: progress.update(task, description=what, advance=1)
            )
        report_findings(report, findings)
        report.machine |= versions
        found.append(findings)
        if plan.is_complete:
            measure_stages(report, STAGES_OF, plan.seconds)

    def draw(report: Report) -> None:
        if chosen.svg is not None:
            write_svg(chosen.svg, report, *found)

    return run("Delivery", measured, chosen, draw=draw)


if __name__ == "__main__":
    sys.exit(main())
