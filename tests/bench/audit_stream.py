"""How late the audit stream in Redis is: `.venv/bin/python tests/bench/audit_stream.py [--quick]`.

A process writes records at 5,000 a second into a chain of its own; another puts the log in order; the one of
the consumers copies it to the stream, of which a group of a reader takes it. The reader compares the time in
each record with the time at which it has it. Both clocks are this machine's.

- `stream_lag_p99_ms`: how late 99 in 100 records are at most.
- Beside it: the CPU of the process that delivers, and of Redis, in percent of a core. Workers have no part in
  it.

`measure` can be called by another program, which has a report of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator  # noqa: TC003 -- as in the other benchmarks
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec
import redis
from processes import cpu_seconds
from program import amount_of, arguments_of, run
from report import quantile

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_stream import STREAM
from gateway.assembly.audit_consumers import ConsumersOrder
from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.audit import AuditLog
from gateway.audit.index import Indexer
from gateway.audit.record import WorkerRecord

if TYPE_CHECKING:
    from report import Report

NODE, GROUP = "bench", "bench"
PER_SECOND, BATCH = 5_000, 25
TARGET_MS = 100.0
SETTLING_SECONDS, STARTING_SECONDS = 4.0, 60
_BOOT = "from gateway.operations.audit_consumers import main; main()"


@dataclass(frozen=True)
class Size:
    """How long it is measured."""

    seconds: float


FULL, QUICK = Size(20.0), Size(4.0)
SMOKE = Size(1.0)


def write_records(folder: Path, key_file: Path, seconds: float) -> None:
    """Write records, evenly spread. Run in a process of its own."""
    log = AuditLog(folder=folder, node=NODE, signing_key=load_signing_key(key_file), clock=SystemClock())
    began = time.monotonic()
    for number in range(int(seconds * PER_SECOND / BATCH)):
        for _ in range(BATCH):
            log.note(WorkerRecord, worker="bench:4711:0123abcd", state="started", version="0.1.0")
        time.sleep(max(0.0, began + (number + 1) * BATCH / PER_SECOND - time.monotonic()))
    log.close()


def index_records(folder: Path) -> None:
    """Keep the index. Run in a process of its own, until it is ended."""
    indexer = Indexer(folder, NODE)
    while True:
        if not indexer.step():
            time.sleep(0.005)


@contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run a function in a process of its own; end it afterwards."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


@contextmanager
def delivering(order: ConsumersOrder) -> Iterator[int]:
    """The process of the consumers; its number."""
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    if process.stdin is None:
        raise RuntimeError("a process without standard input")
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    process.stdin.flush()
    try:
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()


def read_lags(client: redis.Redis, seconds: float) -> list[float]:
    """How late each record of these seconds is, in milliseconds."""
    lags: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=1000, block=100)
        now = time.time()  # noqa: TID251 -- compared with the time of records
        entries = found[0][1] if found else []
        for _, fields in entries:
            if b"record" in fields:
                written = datetime.fromisoformat(json.loads(fields[b"record"])["time"]).timestamp()
                lags.append((now - written) * 1000)
        if entries:
            client.xack(STREAM, GROUP, *[key for key, _ in entries])
    return lags


def measure(report: Report, size: Size) -> None:
    """Measure the stream."""
    with tempfile.TemporaryDirectory() as made, EmbeddedValkey(Path(made) / "state").running() as url:
        folder, key_file = Path(made) / "audit", Path(made) / "audit.pem"
        folder.mkdir(mode=0o700)
        create_signing_key(key_file)
        order = ConsumersOrder(
            folder=str(folder),
            node=NODE,
            signing_key_file=str(key_file),
            redis_url=url,
            has_stream=True,
            stream_bytes=64 << 20,
        )
        client = redis.Redis(unix_socket_path=unquote(urlsplit(url).path), protocol=2)
        client.xgroup_create(STREAM, GROUP, "$", mkstream=True)
        writing = folder, key_file, size.seconds + SETTLING_SECONDS + STARTING_SECONDS
        with beside(index_records, folder), delivering(order) as pid, beside(write_records, *writing):
            for _ in range(STARTING_SECONDS):  # processes start, and a machine may be busy
                if read_lags(client, 1.0):
                    break
            read_lags(client, SETTLING_SECONDS)  # until it writes at its pace
            pids = {"runner": pid, "redis": int(client.info("server")["process_id"])}
            before, began = {name: cpu_seconds([one]) for name, one in pids.items()}, time.monotonic()
            lags = read_lags(client, size.seconds)
            spent = time.monotonic() - began
            shares = {name: (cpu_seconds([one]) - before[name]) / spent for name, one in pids.items()}
        client.close()
    report.spread("stream_lag", lags, "lag of a record by the stream, milliseconds")
    report.row("stream_runner_percent", 100 * shares["runner"], "CPU of the process that delivers")
    report.row("stream_redis_percent", 100 * shares["redis"], "CPU of Redis meanwhile")
    report.row("stream_records_per_s", len(lags) / spent, "records a second that the reader got")
    report.figure(
        "stream_lag_p99_ms",
        quantile(lags, 0.99),
        target=TARGET_MS,
        meaning=f"{PER_SECOND:,} records a second by the stream in Redis: how late 99 in 100 are at most",
    )


def main() -> int:
    chosen = arguments_of(__doc__ or "", "four seconds").parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("The audit stream", partial(measure, size=size), chosen)


if __name__ == "__main__":
    sys.exit(main())
