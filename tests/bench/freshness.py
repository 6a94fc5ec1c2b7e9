"""How fresh and how fast decisions are: `.venv/bin/python tests/bench/freshness.py [--quick] [--json FILE]`.

It starts servers of its own and leaves nothing behind. `--quick` ends within a minute, with fewer changes and
fewer keys; the rows say how many. Figures of two conditions are interleaved, so that other load on the
machine affects both.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import barrier
import crowd
import uvloop
from decision import FILE_NAME, MODEL, PACKAGE, Bench, median, request_of
from installation import Installation
from program import amount_of, arguments_of, run
from report import Report, console, quantile
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.records import names
from gateway.operations.session import fact_server
from tests.faults.replicated.servers import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    workers: int
    rounds: int  # of changes, seven each, in each condition
    keys: int
    few_keys: int
    hot: int  # callers whose decisions are in memory
    cold: int  # callers who were never seen
    interleaved: int


FULL = Size(workers=4, rounds=150, keys=1_000_000, few_keys=1_000, hot=1_000, cold=2_000, interleaved=40)
QUICK = Size(workers=4, rounds=8, keys=20_000, few_keys=1_000, hot=1_000, cold=200, interleaved=10)
SMOKE = Size(workers=1, rounds=1, keys=400, few_keys=200, hot=100, cold=20, interleaved=1)


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar; calling what it gives moves it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def measure_barriers(report: Report, size: Size) -> None:
    """Changes under four workers, idle and under load."""
    stale = 0
    with Installation.made() as installation:
        barrier.write_cache(installation)
        with installation.serving(size.workers) as port:
            for name, is_loaded in (("idle", False), ("load", True)):
                with bar(f"barriers, {name}", size.rounds * barrier.CHANGES_PER_ROUND) as advance:
                    measured = uvloop.run(
                        barrier.measure(
                            installation, port, rounds=size.rounds, is_loaded=is_loaded, advance=advance
                        )
                    )
                stale += measured.stale
                _report_barriers(report, name, measured, size.workers)
    report.figure(
        "stale_allows", stale, target=0, meaning="allows of an old state, asked for after the change returned"
    )


def measure_quorum(report: Report, size: Size) -> None:
    """The same over three servers, all of which have to have a change, and three Sentinels; idle."""
    stale = 0
    for fsync in ("everysec", "always"):
        with three_servers(fsync) as url, Installation.made(CACHEGATE_REDIS_URL=url) as installation:
            barrier.write_cache(installation)
            name = "quorum" if fsync == "everysec" else f"quorum_{fsync}"
            changes = size.rounds * barrier.CHANGES_PER_ROUND
            with installation.serving(size.workers) as port, bar(f"barriers, {name}", changes) as advance:
                measured = uvloop.run(
                    barrier.measure(installation, port, rounds=size.rounds, is_loaded=False, advance=advance)
                )
        stale += measured.stale
        _report_barriers(
            report, name, measured, size.workers, target=5, more=f", 3 servers with `appendfsync {fsync}`",
            is_figure=fsync == "everysec",
        )  # fmt: skip
    report.row("stale_allows_quorum", stale, "allows of an old state over three servers")


@contextmanager
def three_servers(fsync: str) -> Iterator[str]:
    """A primary, two replicas and three Sentinels as `deploy/redis/` sets them up; gives their URL."""
    folder = Path(tempfile.mkdtemp(prefix="cg-bench-"))
    try:
        group = Group(folder, lines=(f"appendfsync {fsync}",))
        try:
            yield group.url
        finally:
            group.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report_barriers(
    report: Report,
    name: str,
    measured: barrier.Barriers,
    workers: int,
    *,
    target: float | None = None,
    more: str = "",
    is_figure: bool = True,
) -> None:
    count = f"{len(measured.waits):,} changes, {workers} workers{more}"
    about = f"from the commit until it is known to hold in every worker; {count}"
    if is_figure:
        p99 = quantile(measured.waits, 0.99)
        report.figure(f"barrier_p99_ms_{name}", p99, target=target, meaning=about)
    report.spread(f"barrier_ms_{name}", measured.waits, "the same")
    report.spread(
        f"change_ms_{name}", measured.wholes, "the whole change: audit record, commit with fsync, barrier"
    )
    report.row(
        f"answers_per_second_{name}", measured.answers / measured.seconds, "answers to readers meanwhile"
    )
    report.row(f"judged_{name}", measured.judged, "answers whose state was known when they were asked for")
    report.row(
        f"late_refusals_{name}", measured.late, "refusals of what a change that had returned had opened"
    )
    report.row(f"undecided_{name}", measured.undecided, "503, because facts moved or a lease ran out")
    report.row(f"unsure_{name}", measured.unsure, "barriers that could not be sure")


def measure_decisions(report: Report, size: Size) -> None:
    """Decisions in two workers: one over a server with few keys, one over a server with very many."""
    with (
        Installation.made() as small,
        Installation.made() as large,
        _held(small) as few,
        _held(large) as many,
    ):
        crowds = []
        for installation, keys in ((small, size.few_keys), (large, size.keys)):
            url = few if installation is small else many
            crowds.append(_populate(report, installation, url, keys, size, is_told=installation is large))
        uvloop.run(_decide(report, size, (small, few), (large, many), crowds))


@contextmanager
def _held(installation: Installation) -> Iterator[str]:
    """Its server, which stays up between the commands."""
    with fact_server(installation.settings) as url:
        yield str(url)


def _populate(
    report: Report, installation: Installation, url: str, keys: int, size: Size, *, is_told: bool
) -> crowd.Crowd:
    model = SampleModel(model_id=MODEL, packages={PACKAGE: {FILE_NAME: b"weights\n" * 100}})
    write_sample_cache(installation.settings.cache_root, [model])
    file, rights = installation.folder / "keys.ndjson", installation.folder / "rights.ndjson"
    with bar(f"writing {keys:,} keys", keys) as advance:
        made = crowd.write_keys(installation, file, keys, min(keys, size.hot + size.cold), advance)
        crowd.write_rights(installation, rights, keys, MODEL)
    before = crowd.used_memory(url)
    seconds = crowd.bring_in(installation, file)
    between = crowd.used_memory(url)
    crowd.bring_in(installation, rights)
    if is_told:
        tenants = keys // crowd.KEYS_PER_TENANT
        about = f"used_memory per key with {keys:,} keys of {tenants:,} tenants, all records and indexes"
        report.figure("bytes_per_key", (between - before) / keys, target=300, meaning=about)
        report.row(
            "bytes_per_key_with_rights",
            (crowd.used_memory(url) - before) / keys,
            "the same with a rule and a grant for each tenant",
        )
        report.row(
            "import_facts_per_second", (keys + tenants) / seconds, "`directory import`, checks included"
        )
    return made


async def _decide(
    report: Report,
    size: Size,
    small: tuple[Installation, str],
    large: tuple[Installation, str],
    crowds: list[crowd.Crowd],
) -> None:
    now = SystemClock().now()
    hot = [[request_of(token, now) for token in one.tokens[: size.hot]] for one in crowds]
    cold = [request_of(token, now) for token in crowds[1].tokens[size.hot :]]
    async with (
        Bench.over(small[0].settings, small[1]) as few,
        Bench.over(large[0].settings, large[1]) as many,
    ):
        await _fill_near_cache(many, crowds[1])
        milliseconds = [one / 1000 for one in await many.microseconds(cold)]
        about = (
            "caller never seen by this worker: its key, tenant, grants and model asked of Redis, in process"
        )
        report.figure(
            "decision_cold_p50_ms", median(milliseconds), target=1, meaning=f"{about}; {len(cold):,}"
        )
        report.row("decision_cold_p99_ms", quantile(milliseconds, 0.99), "the same")
        for bench, requests in ((few, hot[0]), (many, hot[1])):
            await bench.microseconds(requests)
        ratios, all_few = [], []
        with bar("decisions from memory", size.interleaved) as advance:
            for _ in range(size.interleaved):
                ours, theirs = await few.microseconds(hot[0]), await many.microseconds(hot[1])
                ratios.append(median(theirs) / median(ours))
                all_few += ours
                advance()
        about = "caller and path remembered: the pass, lease, last check; in process"
        report.figure(
            "decision_memory_us",
            median(all_few),
            target=10,
            meaning=f"{about}; {len(all_few):,} of {size.hot:,} callers",
        )
        report.row("decision_memory_p99_us", quantile(all_few, 0.99), "the same")
        for stage, taken in (await few.stages(hot[0])).items():
            report.row(f"decision_{stage}_us", median(taken), "a part, where the path is new")
        report.row(
            "admit_us", median(await few.admit_microseconds(hot[0])), "the guard with disk and audit record"
        )
        report.figure(
            "latency_ratio_1m",
            median(ratios),
            target=1.1,
            meaning=f"decision from memory with {size.keys:,} keys in Redis and "
            f"{len(many.pipeline.facts.cache):,} facts in memory, over that with {size.few_keys:,} keys; "
            f"{len(ratios)} interleaved rounds of {size.hot:,} callers",
        )


async def _fill_near_cache(bench: Bench, crowd_: crowd.Crowd) -> None:
    """As many records as the near cache holds, but for what the measured callers will need."""
    room = bench.pipeline.settings.near_cache_entries - 10_000
    wanted = [names.key_fact(digest) for digest in crowd_.digests[:room]]
    for start in range(0, len(wanted), 1_000):
        await bench.pipeline.facts.read(wanted[start : start + 1_000])
        await asyncio.sleep(0)


def main() -> int:
    """Measure, print, write."""
    parser = arguments_of(str(__doc__), "fewer of everything")
    parser.add_argument("--only", choices=("barriers", "decisions"), help="one half of it")
    chosen = parser.parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)

    def measure(report: Report) -> None:
        if chosen.only != "decisions":
            measure_barriers(report, size)
            measure_quorum(report, size)
        if chosen.only != "barriers":
            measure_decisions(report, size)

    return run("Freshness", measure, chosen)


if __name__ == "__main__":
    sys.exit(main())
