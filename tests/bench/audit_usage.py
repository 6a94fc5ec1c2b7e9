"""What figures from the log cost: `.venv/bin/python tests/bench/audit_usage.py [--quick] [--json FILE]`.

- `usage_query_ms`: what all tenants used in thirty days, in a log of a million records, as `/audit/v1/usage`
  answers: from the counts of each day, and with the newest records, which nobody counted yet.
- Beside it: its CPU, the first question of a worker, which reads the counts, the same of one tenant, and the
  CPU of counting a record and of making its event in OCSF.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from audit_proofs import BATCH, OUTCOME, Clock, admission
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from program import amount_of, arguments_of, run

from gateway.audit import AuditLog, read_events
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.ocsf import to_ocsf
from gateway.audit.usage import UsageKeeper, UsageQuery, UsageRollups, figures_of

if TYPE_CHECKING:
    from report import Report

NODE = "bench"
DAYS, DAY_SECONDS = 30, 86_400
CALLERS = 320  # keys, each of a tenant of its own, with a model of its own
BATCH_SECONDS = 0.0032
MOST_WRITTEN_BEHIND = 1000  # records that are in the log and in no count yet


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    records: int
    queries: int
    events: int


FULL = Size(records=1_000_000, queries=100, events=50_000)
QUICK = Size(records=60_000, queries=20, events=5000)
SMOKE = Size(records=20_000, queries=2, events=200)


def measure(report: Report, size: Size) -> None:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="cg-bench-") as folder:
        measure_in(report, size, Path(folder) / "audit")


def measure_in(report: Report, size: Size, folder: Path) -> None:
    """All figures, with the log in this folder."""
    key, clock = Ed25519PrivateKey.generate(), Clock()
    write_days(folder, key, clock, size.records - MOST_WRITTEN_BEHIND)
    indexer = Indexer(folder, NODE)
    counted, seconds = index_and_count(folder, indexer)
    report.row("count_record_us", seconds / counted * 1e6, "CPU of reading and counting a record, for usage")
    write_days(folder, key, clock, MOST_WRITTEN_BEHIND, days=1)
    while indexer.step():
        pass
    indexer.close()
    reader = IndexReader(folder, NODE)
    rollups = UsageRollups(folder, reader)
    taken: dict[str, list[float]] = {"first": [], "all": [], "one": []}
    cpu: list[float] = []
    for number in range(size.queries + 1):
        for name, query in (("all", UsageQuery()), ("one", UsageQuery(tenant="tenant-7"))):
            began, began_cpu = time.perf_counter(), time.process_time()
            days = rollups.days()
            answer = msgspec.json.encode(figures_of(days.days, query))
            spent = (time.perf_counter() - began) * 1000
            taken["first" if number == 0 else name].append(spent)
            if name == "all":
                cpu.append((time.process_time() - began_cpu) * 1000)
            if not days.is_current or len(answer) < 1000:
                raise RuntimeError("the benchmark's own question has no whole answer")
    report.row(
        "usage_first_ms", taken["first"][0], "the first question, with the counts read from their files"
    )
    report.row("usage_cpu_ms", sorted(cpu)[len(cpu) // 2], "CPU of the question, the median")
    report.spread("usage_query_ms", taken["all"], f"{DAYS} days of {CALLERS} keys")
    report.spread("usage_tenant_ms", taken["one"], "the same days of one tenant")
    middle = sorted(taken["all"])[len(taken["all"]) // 2]
    meaning = f"usage of all tenants in {DAYS} days, the median, in a log of {size.records:,} records"
    report.figure("usage_query_ms", middle, target=200, meaning=meaning)
    measure_events(report, size, folder)


def measure_events(report: Report, size: Size, folder: Path) -> None:
    """The cost of an event in OCSF."""
    events = [event for event, _ in zip(read_events(folder), range(size.events), strict=False)]
    began = time.process_time()
    for event in events:
        msgspec.json.encode(to_ocsf(event.record, event.line))
    report.row("ocsf_event_us", (time.process_time() - began) / len(events) * 1e6, "CPU of a record's event")


def index_and_count(folder: Path, indexer: Indexer) -> tuple[int, float]:
    """Put the log in order and count it; how many records it has, and the CPU seconds of counting."""
    while indexer.step():
        pass
    keeper = UsageKeeper(folder, IndexReader(folder, NODE))
    counted, now = 0, 0.0
    began = time.process_time()
    while more := keeper.follow(now):
        counted += more
        now += 1.0
    keeper.save(now)
    return counted, time.process_time() - began


def write_days(folder: Path, key: Ed25519PrivateKey, clock: Clock, records: int, *, days: int = DAYS) -> None:
    """Write reads of many keys, the same number each day."""
    log = AuditLog(folder=folder, node=NODE, signing_key=key, clock=clock, on_left=lambda: None)
    batches = [[admission(first + number) for number in range(BATCH)] for first in range(0, CALLERS, BATCH)]
    a_day = max(1, records // 2 // BATCH // days)
    for number in range(records // 2 // BATCH):
        clock.time += BATCH_SECONDS
        if number % a_day == a_day - 1 and days > 1:
            clock.time += DAY_SECONDS
        for receipt in log.record_all(batches[number % len(batches)]):
            if isinstance(receipt, str):
                raise TypeError("the benchmark's own reads are allowed")
            receipt.close(OUTCOME)
    log.close()


if __name__ == "__main__":
    chosen = arguments_of(__doc__, "a smaller log").parse_args()
    sys.exit(
        run(
            "Figures from the audit log",
            partial(measure, size=amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)),
            chosen,
        )
    )
