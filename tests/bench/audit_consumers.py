"""How late consumers of the log are: `.venv/bin/python tests/bench/audit_consumers.py [--quick]`.

A process writes records beside the gateway, 5,000 a second, into a chain of its own; a client of the feed
compares the time in each record with the time at which it has it. Both clocks are this machine's.

- `feed_lag_p99_ms`: by long polls, one after the other.
- `events_lag_p99_ms`: by server-sent events.
- Beside them: the CPU of the worker meanwhile, in percent of a core.

`measure` can be called by another program, which has a report of its own.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from installation import Installation
from ours import serve_pid
from processes import cpu_seconds
from program import amount_of, arguments_of, run
from report import quantile

from gateway.adapters.clock import SystemClock
from gateway.assembly.signing import load_signing_key
from gateway.audit import AuditLog
from gateway.model.access import Principal, WireRequest
from gateway.model.errors import Reason
from gateway.model.facts import DEFAULT_SCOPES, KeyKind
from gateway.model.names import KeyId, TenantId
from gateway.model.verdicts import Rejection

if TYPE_CHECKING:
    from pathlib import Path

    from report import Report

NODE = "bench"
PER_SECOND, BATCH = 5_000, 25
TARGET_MS = 100.0
FAR = 30.0  # seconds without a record after which a run is given up
EVENTS = "/audit/v1/events"
_CALLER = Principal(
    kind=KeyKind.TENANT,
    key_id=KeyId("key_benchbenchbe"),
    key_name="bench",
    tenant=TenantId("acme"),
    scopes=DEFAULT_SCOPES,
    expires_at=None,
)
Collect = Callable[[http.client.HTTPConnection, str, str, float], list[float]]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seconds: float


FULL, QUICK = Size(20.0), Size(4.0)
SMOKE = Size(1.0)


def write_records(folder: Path, key_file: Path, seconds: float) -> None:
    """Write refusals of a known caller, evenly spread. Run in a process of its own."""
    clock = SystemClock()
    log = AuditLog(folder=folder, node=NODE, signing_key=load_signing_key(key_file), clock=clock)
    caller = WireRequest(
        method="GET",
        raw_path=b"/v1/models",
        query=b"",
        headers=((b"user-agent", b"bench"),),
        client="192.0.2.1",
        route="/v1/models",
        trace_id=None,
        received_at=clock.now(),
    )
    began = time.monotonic()
    for number in range(int(seconds * PER_SECOND / BATCH)):
        log.record_all([Rejection(request=caller, reason=Reason.NOT_PERMITTED, principal=_CALLER)] * BATCH)
        time.sleep(max(0.0, began + (number + 1) * BATCH / PER_SECOND - time.monotonic()))
    log.close()


@contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[multiprocessing.process.BaseProcess]:
    """Run a function in a process of its own; end it afterwards."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join()


def poll(connection: http.client.HTTPConnection, key: str, query: str, seconds: float) -> list[float]:
    """The lags of records by long polls, in milliseconds."""
    lags: list[float] = []
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/x-ndjson"}
    path = f"{EVENTS}?after=end&limit=1000&{query}"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        link = answer.headers["link"]
        body = answer.read()
        now = time.time()  # noqa: TID251 -- compared with the time of records
        lags += [_lag(json.loads(line)["record"], now) for line in body.splitlines()]
        path = link[1 : link.index(">")]
        if "wait=" not in path:
            path += "&wait=10"
    return lags


def stream(connection: http.client.HTTPConnection, key: str, query: str, seconds: float) -> list[float]:
    """The lags of records by a stream, in milliseconds."""
    lags: list[float] = []
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    connection.request("GET", f"{EVENTS}?after=end&{query}", headers=headers)
    answer = connection.getresponse()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        line = answer.readline()
        if not line:
            raise RuntimeError("the stream ended")
        if line.startswith(b"data: "):
            now = time.time()  # noqa: TID251 -- compared with the time of records
            lags.append(_lag(json.loads(line[6:]), now))
    return lags


def _lag(record: dict[str, str], now: float) -> float:
    return (now - datetime.fromisoformat(record["time"]).timestamp()) * 1000


def measure(report: Report, size: Size) -> None:
    """Measure both ways, one after the other."""
    with Installation.made() as made, made.serving(1) as port:
        key = _make_key(made)
        worker = serve_pid(made)
        for name, collect in (("feed", poll), ("events", stream)):
            lags, share = _measure_one(made, port, key, worker, collect, size.seconds)
            report.spread(f"{name}_lag", lags, f"lag of a record by the {name}, milliseconds")
            report.row(f"{name}_worker_percent", 100 * share, f"CPU of the worker meanwhile ({name})")
            report.figure(
                f"{name}_lag_p99_ms",
                quantile(lags, 0.99),
                target=TARGET_MS,
                meaning=f"{PER_SECOND:,} records a second by the {name}: how late 99 in 100 are at most",
            )


def _measure_one(
    made: Installation, port: int, key: str, worker: int, collect: Collect, seconds: float
) -> tuple[list[float], float]:
    settings = made.settings
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FAR)
    arguments = settings.audit_folder, settings.signing_key_file, seconds + 6.0
    with beside(write_records, *arguments):
        time.sleep(3.0)  # until it writes at its pace
        before, began = cpu_seconds([worker]), time.monotonic()
        lags = collect(connection, key, "reason=not-permitted", seconds)
        share = (cpu_seconds([worker]) - before) / (time.monotonic() - began)
    connection.close()
    return lags, share


def _make_key(made: Installation) -> str:
    arguments = "-m", "gateway", "keys", "create", "--admin", "--role", "auditor", "--json"
    done = subprocess.run(
        [sys.executable, *arguments], env=made.environment, capture_output=True, check=True, text=True
    )
    token: str = json.loads(done.stdout)["token"]
    return token


def main() -> int:
    chosen = arguments_of(__doc__ or "", "four seconds each").parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("Consumers of the audit log", partial(measure, size=size), chosen)


if __name__ == "__main__":
    sys.exit(main())
