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
READS = ("varied", "traced", "head", "range", "link")  # which have figures of their own
APART = "scan"  # reported, and no part of a figure


@dataclass
class Findings:
    """All that was measured; what was not is empty."""

    titles: dict[str, str]
    set_titles: dict[str, str] = field(default_factory=dict)
    idle_mb: float | None = None
    thousands: list[Downloads] = field(default_factory=list)
    small: dict[str, Rounds[Reads]] = field(default_factory=dict)  # by the name of the requests
    large: dict[str, Rounds[Pulled]] = field(default_factory=dict)
    mixed: Rounds[Mixed] = field(default_factory=Rounds)
    workers: Rounds[Reads] = field(default_factory=Rounds)


def report_findings(report: Report, found: Findings) -> None:
    """Figures first, then what they were made of."""
    _small_figures(report, found)
    _large_figures(report, found)
    _ratio_rows(report, found)
    for name, rounds in found.small.items():
        for contender, turns in rounds.runs.items():
            about = f"{found.titles[contender]}: {found.set_titles[name]}"
            _small_rows(report, f"{name}_{contender}", about, turns)
    for kind, large in found.large.items():
        for name in large.runs:
            _large_rows(report, f"{kind}_{name}", found.titles[name], large.runs[name])
    for name, runs in found.mixed.runs.items():
        _small_rows(report, f"mixed_{name}", found.titles[name], [turn.reads for turn in runs])
        speeds = [turn.gb_per_second for turn in runs]
        add_row(report, f"mixed_{name}_gb_per_second", speeds, "of the large reads meanwhile")
    for name, reads in found.workers.runs.items():
        title = "one worker" if name == OURS else "four workers"
        _small_rows(report, f"workers_{name}", f"{title}, on all cores with the load", reads)
    if found.thousands:
        _memory_rows(report, found)


def _small_figures(report: Report, found: Findings) -> None:
    def over(
        name: str, sent: str, theirs: str, target: float, what: str, of: Callable[[Reads], float] = _rate
    ) -> None:
        if sent in found.small and theirs in found.small[sent].runs:
            add_figure(report, name, found.small[sent].ratios(OURS, theirs, of), target, what)

    about = "requests per second, guarded and recorded, over nginx asking a second nginx"
    for sent, target in zip(READS, (1.0, 0.8, 0.7, 0.7, 0.7), strict=True):
        what = f"{found.set_titles.get(sent)}: {about}"
        over(f"{sent}_vs_nginx_auth_request", sent, ASKING, target, what)
    what = "p99 of whole files, over that of nginx asking a second nginx"
    over("varied_p99_vs_nginx_auth_request", "varied", ASKING, 1.2, what, _p99)
    slowest = _slowest(found)
    if slowest is not None:
        name, ratios = slowest
        what = f"the slowest of all other answers ({name}) over the shape of a hosted platform's guard"
        add_figure(report, "slowest_route_vs_hosted_shape", ratios, 1, what)
    over("small_vs_nginx_static", "varied", STATIC, 0.5, "whole files over nginx without a guard")
    what = "whole files over the shape of a hosted platform's guard"
    over("small_vs_hosted_shape", "varied", HOSTED, 8, what)


def _slowest(found: Findings) -> tuple[str, list[float]] | None:
    """The name and the ratios of the answer whose median ratio is the least."""
    ratios = {
        name: rounds.ratios(OURS, HOSTED, _rate)
        for name, rounds in found.small.items()
        if name not in (*READS, APART) and HOSTED in rounds.runs
    }
    return min(ratios.items(), key=lambda one: median(one[1]), default=None)


def _large_figures(report: Report, found: Findings) -> None:
    about = "CPU seconds of the server for a GB over those of nginx without a guard"
    kinds = {"large": "one connection", "ranges": "8 x 16 MiB at once", "package_ranges": "64 at once"}
    costs = {
        kind: rounds.ratios(OURS, STATIC, lambda turn: turn.cpu_seconds_per_gb)
        for kind, rounds in found.large.items()
        if _has_cpu(rounds)
    }
    if "large" in costs:
        add_figure(report, "large_cpu_vs_nginx", costs["large"], 0.9, f"{about}; {kinds['large']}")
    of_ranges = {kind: one for kind, one in costs.items() if kind != "large"}
    if of_ranges:
        worst = max(of_ranges, key=lambda kind: median(of_ranges[kind]))
        what = f"{about}; the dearer of the rows below ({kinds[worst]})"
        add_figure(report, "ranges_cpu_vs_nginx", of_ranges[worst], 1, what)
    for kind, ratios in of_ranges.items():
        add_row(report, f"{kind}_alone_cpu_vs_nginx", ratios, f"{about}; {kinds[kind]}")
    if found.mixed.runs:
        ratios = found.mixed.ratios(OURS, STATIC, lambda turn: turn.reads.p99_ms)
        about = "p99 of small reads while 4 large ones run, one worker, over nginx"
        add_figure(report, "mixed_p99_vs_nginx", ratios, 1, f"{about} without a guard")
    if ASKING in found.mixed.runs:
        ratios = found.mixed.ratios(OURS, ASKING, lambda turn: turn.reads.p99_ms)
        add_row(report, "mixed_p99_vs_nginx_auth_request", ratios, f"{about} asking a second nginx")
    if found.workers.runs:
        ratios = found.workers.ratios("cachegate_workers", OURS, _rate)
        add_figure(report, "workers_4_vs_1", ratios, 1, "whole files, four workers over one, on all cores")
    if found.idle_mb is not None:
        about = "10^6 bytes of a worker (PSS) that is ready and was asked nothing"
        report.figure("idle_worker_mb", found.idle_mb, target=80, meaning=about)
    if found.thousands:
        ratios = [held.during_mb / held.before_mb for held in found.thousands[1:]]
        about = "a worker's memory with 1,000 slow downloads of 1 GB under way, over that before; once warm"
        add_figure(report, "memory_ratio_1000_downloads", ratios, 1.1, about)


def _ratio_rows(report: Report, found: Findings) -> None:
    """Every set over every rival, where that is no figure, and what it costs."""
    for name, rounds in found.small.items():
        for rival in rounds.runs:
            is_figure = rival == ASKING or (name == "varied" and rival in (STATIC, HOSTED))
            if rival == OURS or is_figure:
                continue
            what = f"{found.set_titles[name]}: requests per second over {found.titles[rival]}"
            add_row(report, f"{name}_vs_{rival}", rounds.ratios(OURS, rival, _rate), what)
        if ASKING in rounds.runs and min(rounds.values(ASKING, _cpu)) > 0:  # it is counted in steps of 10 ms
            costs = rounds.ratios(OURS, ASKING, _cpu)
            what = "CPU time for each over nginx asking a second nginx: other load moves it least"
            add_row(report, f"{name}_cpu_vs_nginx_auth_request", costs, what)


def _has_cpu(rounds: Rounds[Pulled]) -> bool:
    """The kernel counts time in steps of 10 ms: a short run may come to none."""
    return all(turn.cpu_seconds > 0 for turn in rounds.runs[STATIC])


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
    """The comparisons that matter most, drawn."""
    about = report.machine
    rounds = len(next(iter(found.small.values())).runs[OURS])
    method = f"Each server on one core, the load on another. Medians of {rounds} interleaved rounds"
    machine = f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}"
    versions = f"nginx {about['nginx']}, FastAPI {about['fastapi']}, Caddy {about['caddy']}"
    load = f"load of the machine {about['load_at_start']:.1f} before and {about['load_at_end']:.1f} after"
    notes = (f"{method}.", f"Lines from the least to the most; {load}.", f"{machine}, {versions}.")
    panels = [
        Panel(f"{title}, requests per second: more is better", _bars(found, found.small[name], _rate))
        for name, title in (
            ("varied", "Whole files (10 KB), 20 tenants, 40 keys, 200 files"),
            ("traced", "The same, each request with a trace of its own"),
            ("range", "A range of these files"),
        )
        if name in found.small
    ]
    if "large" in found.large:
        bars = _bars(found, found.large["large"], lambda turn: turn.cpu_seconds_per_gb)
        panels.append(Panel("Large reads (1 GB), server CPU seconds per GB: less is better", bars, "{:.2f}"))
    if found.mixed.runs:
        bars = _bars(found, found.mixed, lambda turn: turn.reads.p99_ms)
        title = "p99 of small reads beside four large ones, ms: less is better"
        panels.append(Panel(title, bars, "{:.1f}"))
    write_plot(file, "Delivery, with each of Cachegate's reads decided and recorded", notes, panels)


def _bars(found: Findings, rounds: Rounds, of: Callable[..., float]) -> list[Bar]:
    bars = []
    for name in rounds.runs:
        values = rounds.values(name, of)
        bars.append(Bar(found.titles[name], median(values), min(values), max(values), is_ours=name == OURS))
    return bars


def _rate(turn: Reads) -> float:
    return turn.per_second


def _cpu(turn: Reads) -> float:
    return turn.cpu_us


def _p99(turn: Reads) -> float:
    return turn.p99_ms
