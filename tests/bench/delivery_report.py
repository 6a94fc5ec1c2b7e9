"""The results of the delivery benchmark, as figures, rows and a plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from plot import Bar, Panel, write_plot
from rounds import Rounds, add_figure, add_row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from downloads import Downloads
    from puller import Pulled
    from report import Report
    from rounds import Mixed
    from wrk import Reads

OURS, STATIC, ASKING, HOSTED = "cachegate", "nginx_static", "nginx_auth_request", "hosted_shape"


@dataclass
class Findings:
    """All that was measured."""

    titles: dict[str, str]
    idle_mb: float
    thousands: list[Downloads]
    small: Rounds[Reads]
    large: Rounds[Pulled]
    ranges: Rounds[Pulled]
    mixed: Rounds[Mixed]
    workers: Rounds[Reads] = field(default_factory=Rounds)


def report_findings(report: Report, found: Findings) -> None:
    """Figures first, then what they were made of."""
    _figures(report, found)
    for name, title in found.titles.items():
        _small_rows(report, f"small_{name}", title, found.small.runs[name])
    for kind, rounds in (("large", found.large), ("ranges", found.ranges)):
        for name in rounds.runs:
            _large_rows(report, f"{kind}_{name}", found.titles[name], rounds.runs[name])
    for name, runs in found.mixed.runs.items():
        _small_rows(report, f"mixed_{name}", found.titles[name], [turn.reads for turn in runs])
        speeds = [turn.gb_per_second for turn in runs]
        add_row(report, f"mixed_{name}_gb_per_second", speeds, "of the large reads meanwhile")
    for name, runs in found.workers.runs.items():
        title = "one worker" if name == OURS else "four workers"
        _small_rows(report, f"workers_{name}", f"{title}, on all cores with the load", runs)
    _memory_rows(report, found)


def _figures(report: Report, found: Findings) -> None:
    def small(name: str, theirs: str, target: float, of: Callable[[Reads], float], what: str) -> None:
        add_figure(report, name, found.small.ratios(OURS, theirs, of), target, what)

    about = "requests per second for 10 KB, guarded and recorded, over"
    small("small_vs_nginx_auth_request", ASKING, 1.3, _rate, f"{about} nginx asking a second nginx")
    small("small_vs_nginx_static", STATIC, 0.5, _rate, f"{about} nginx without a guard")
    small("small_vs_hosted_shape", HOSTED, 8, _rate, f"{about} the shape of a hosted platform's guard")
    small("small_p99_vs_nginx_auth_request", ASKING, 1, _p99, "p99 of these reads over that of nginx")
    costs = found.small.ratios(OURS, ASKING, lambda turn: turn.cpu_us)
    about = "CPU time for each over nginx asking a second nginx; what others do on the machine moves it least"
    add_row(report, "small_cpu_vs_nginx_auth_request", costs, about)
    about = "CPU seconds of the server for a GB over those of nginx without a guard"
    for name, rounds, what in (
        ("large_cpu_vs_nginx", found.large, "one connection"),
        ("ranges_cpu_vs_nginx", found.ranges, "8 x 16 MiB at once"),
    ):
        ratios = rounds.ratios(OURS, STATIC, lambda turn: turn.cpu_seconds_per_gb)
        add_figure(report, name, ratios, 1, f"{about}; {what}")
    ratios = found.mixed.ratios(OURS, STATIC, lambda turn: turn.reads.p99_ms)
    about = "p99 of small reads while 4 large ones run, one worker, over nginx"
    add_figure(report, "mixed_p99_vs_nginx", ratios, 1, f"{about} without a guard")
    ratios = found.mixed.ratios(OURS, ASKING, lambda turn: turn.reads.p99_ms)
    add_row(report, "mixed_p99_vs_nginx_auth_request", ratios, f"{about} asking a second nginx")
    ratios = found.workers.ratios("cachegate_workers", OURS, _rate)
    add_figure(report, "workers_4_vs_1", ratios, 1, "small reads, four workers over one, on all cores")
    about = "10^6 bytes of a worker (PSS) that is ready and was asked nothing"
    report.figure("idle_worker_mb", found.idle_mb, target=80, meaning=about)
    ratios = [held.during_mb / held.before_mb for held in found.thousands[1:]]
    about = "a worker's memory with 1,000 slow downloads of 1 GB under way, over that before; once warm"
    add_figure(report, "memory_ratio_1000_downloads", ratios, 1.1, about)


def _small_rows(report: Report, name: str, title: str, runs: Sequence[Reads]) -> None:
    cpu = median([turn.cpu_us for turn in runs])
    p50 = median([turn.p50_ms for turn in runs])
    add_row(
        report, f"{name}_per_second", [_rate(turn) for turn in runs], f"{title}; {cpu:.0f} us of CPU each"
    )
    add_row(report, f"{name}_p99_ms", [_p99(turn) for turn in runs], f"p50 {p50:.2f} ms")


def _large_rows(report: Report, name: str, title: str, runs: Sequence[Pulled]) -> None:
    speed = median([turn.gb_per_second for turn in runs])
    costs = [turn.cpu_seconds_per_gb for turn in runs]
    add_row(report, f"{name}_cpu_seconds_per_gb", costs, f"{title}; {speed:.1f} GB/s")


def _memory_rows(report: Report, found: Findings) -> None:
    first, last = found.thousands[0], found.thousands[-1]
    report.row(
        "memory_first_1000_ratio",
        first.during_mb / first.before_mb,
        "the first 1,000, which no warm-up preceded",
    )
    report.row("memory_mb_before_first_1000", first.before_mb, "what the allocator takes then, it keeps")
    report.row("memory_mb_with_first_1000", first.during_mb, "the same with them under way")
    report.row("memory_mb_after_last_1000", last.after_mb, f"after {len(found.thousands)} times 1,000")
    left = max(held.descriptors_left for held in found.thousands)
    report.row("descriptors_left_by_downloads", left, "more open files after 1,000 downloads than before")
    outcomes = min(held.outcomes for held in found.thousands)
    report.row("outcomes_of_1000_downloads", outcomes, "outcome records, one of each download")


def write_svg(file: Path, report: Report, found: Findings) -> None:
    """The three comparisons that matter most, drawn."""
    about = report.machine
    rounds = len(found.small.runs[OURS])
    method = f"Each server on one core, the load on another. Medians of {rounds} interleaved rounds"
    machine = f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}"
    versions = f"nginx {about['nginx']}, FastAPI {about['fastapi']}, Caddy {about['caddy']}"
    load = f"load of the machine {about['load_at_start']:.1f} before and {about['load_at_end']:.1f} after"
    notes = (f"{method}.", f"Lines from the least to the most; {load}.", f"{machine}, {versions}.")
    panels = [
        Panel("Small reads (10 KB), requests per second: more is better", _bars(found, found.small, _rate)),
        Panel("Large reads (1 GB), server CPU seconds per GB: less is better",
              _bars(found, found.large, lambda turn: turn.cpu_seconds_per_gb), "{:.2f}"),
        Panel("p99 of small reads beside four large ones, ms: less is better",
              _bars(found, found.mixed, lambda turn: turn.reads.p99_ms), "{:.1f}"),
    ]  # fmt: skip
    write_plot(file, "Delivery, with each of Cachegate's reads decided and recorded", notes, panels)


def _bars(found: Findings, rounds: Rounds, of: Callable[..., float]) -> list[Bar]:
    bars = []
    for name in rounds.runs:
        values = rounds.values(name, of)
        bars.append(Bar(found.titles[name], median(values), min(values), max(values), is_ours=name == OURS))
    return bars


def _rate(turn: Reads) -> float:
    return turn.per_second


def _p99(turn: Reads) -> float:
    return turn.p99_ms
