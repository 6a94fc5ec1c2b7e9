"""What the audit log costs: `.venv/bin/python tests/bench/audit.py [--quick] [--json FILE]`.

- A read that is recorded (decision and outcome), against the same read where another writer stands in the
  place of the log's own and drops what it is given (`unrecorded.py`): CPU within one worker, and requests a
  second over sockets. The row `process_log_us` is against no log at all, so it has the making of records too.
- `power` against `process`, with 32 requests waiting: each waits until the disk has its group. The row
  `fdatasync` says what one sync takes on this disk, meanwhile.
- Verifying a log, on one core.
- The index: making it, what a record costs that it follows, and searches of a million and of ten million
  records, one in 100,000 of which match. `--quick` makes a million once and keeps it in `~/.cache`.

It starts servers of its own and leaves nothing behind. All sides run at once and are measured in turn, so
that other load on the machine affects each of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
import uvloop
from client_requests import request_sets, varied
from contender import Contender
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from equipment import Equipment, find_servers
from in_process import CONNECTIONS, SETTLE_SECONDS, Driven, with_tags
from installation import Installation
from msgspec.structs import replace as replaced
from ours import SETTINGS, Sizes, await_pinned, furnish, serve_pid
from processes import SERVER_CORE, on_cores
from program import amount_of, arguments_of, run
from report import console, quantile
from unrecorded import NoLog, without_writer
from uvicorn.server import ServerState
from wrk import send_requests

from gateway.adapters.clock import SystemClock
from gateway.assembly.app import Worker
from gateway.assembly.components import build_recorder
from gateway.audit import AuditLog, Query, verify
from gateway.audit.folder import segment_name
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.index.lag import IndexingOrder
from gateway.audit.index.reader import search_log
from gateway.audit.timeline import RecordIds, Timestamps
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import DEFAULT_SCOPES, KeyKind
from gateway.model.header_block import Headers
from gateway.model.names import KeyId, TenantId
from gateway.model.stamps import Stamp
from gateway.model.verdicts import Admission, Allowed, Ending, HeldFile, Outcome
from gateway.operations.session import fact_server
from gateway.server.protocol import worker_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from report import Report
    from workload import Workload

SIZES = Sizes(large=1 << 20)
FASTEST = 0.1
UNRECORDED, PROCESS, POWER = "unrecorded", "process", "power"
UNWRITTEN = "unwritten"  # records are made, but neither chained nor written


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int  # in which every server has a turn
    seconds: float  # of a turn
    in_process: int  # rounds of all requests, of each side
    records: int  # of the log that is verified
    verifications: int
    syncs: int
    searched: tuple[int, ...]  # millions of records of the logs that are searched
    million: int = 1_000_000  # fewer in the shortest form


FULL = Size(
    rounds=15, seconds=3.0, in_process=60, records=1_000_000, verifications=3, syncs=1000, searched=(1, 10)
)
QUICK = Size(rounds=4, seconds=0.6, in_process=10, records=60_000, verifications=3, syncs=100, searched=(1,))
SMOKE = Size(
    rounds=1,
    seconds=0.2,
    in_process=1,
    records=3_200,
    verifications=1,
    syncs=5,
    searched=(1,),
    million=20_000,
)


def measure(report: Report, size: Size) -> None:
    """All figures."""
    measure_verification(report, size)
    measure_index(report, size)
    with Installation.made(**SETTINGS) as installation:
        workload = asyncio.run(furnish(installation, SIZES))
        with fact_server(installation.settings) as url:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure_cpu(report, size, Worker(installation.settings, url), workload))
            measure_throughput(report, size, installation, workload)


# CPU within a worker


async def measure_cpu(report: Report, size: Size, worker: Worker, workload: Workload) -> None:
    """The same requests through the same worker, recorded and not, in turn."""
    pipeline = worker.pipeline
    app = worker.app()
    async with pipeline.running():
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Mon, 30 Nov 2026 10:00:00 GMT")]
        sides = {PROCESS: worker.at_once()}
        pipeline.guard = replaced(pipeline.guard, recorder=NoLog())
        sides[UNRECORDED] = worker.at_once()
        settings = dataclasses.replace(pipeline.settings, audit_dir=pipeline.settings.state / UNWRITTEN)
        unwritten = without_writer(build_recorder(settings, pipeline.clock, pipeline._audit_is_behind))
        pipeline.guard = replaced(pipeline.guard, recorder=unwritten)
        sides[UNWRITTEN] = worker.at_once()
        driven = {
            name: Driven(partial(worker_protocol(at_once=side), config, state, {}))
            for name, side in sides.items()
        }
        requests = request_sets(with_tags(workload))["varied"].requests
        raws = [one.refreshed().raw.encode() for one in requests]
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for seconds in (SETTLE_SECONDS, 0.0, 0.0):
            for one in driven.values():
                await one.run(raws, [])
            await asyncio.sleep(seconds)
        for _ in range(size.in_process):
            for name, one in driven.items():
                await one.run(raws, taken[name])
        least = {name: quantile(values, FASTEST) for name, values in taken.items()}
    report.figure(
        "process_us",
        least[PROCESS] - least[UNWRITTEN],
        target=10,
        meaning=f"CPU of a read's decision and outcome in the log's writer, {CONNECTIONS} in an iteration",
    )
    report.row(
        "process_log_us",
        least[PROCESS] - least[UNRECORDED],
        "the same with the making of the records: against no log at all",
    )
    report.row("process_whole_us", least[PROCESS], "CPU of the whole read, recorded")
    report.row("unrecorded_whole_us", least[UNRECORDED], "and not recorded")


# Requests a second


def measure_throughput(report: Report, size: Size, installation: Installation, workload: Workload) -> None:
    """Three servers over the same files and keys, each with a log of its own."""
    _, wrk, environment = find_servers()
    equipment = Equipment(Path(), wrk, Path(), Path(), environment)
    sent = varied(workload)
    with ExitStack() as stack:
        servers = [stack.enter_context(_serving(installation, name)) for name in (UNWRITTEN, PROCESS, POWER)]
        for one in servers:
            await_pinned(
                one, [(item, tenant.tokens[0]) for tenant in workload.tenants for item in tenant.files]
            )
            one.verify(sent, step=7)
            send_requests(equipment, one, sent, size.seconds)
        reads: dict[str, list[Any]] = {one.name: [] for one in servers}
        syncs: list[float] = []
        for number in range(size.rounds):
            turn = number % len(servers)
            for one in servers[turn:] + servers[:turn]:
                reads[one.name].append(send_requests(equipment, one, sent, size.seconds))
            syncs += _sync_times(installation.folder, max(1, size.syncs // size.rounds))

    def ratio(ours: str, theirs: str) -> float:
        pairs = zip(reads[ours], reads[theirs], strict=True)
        return median(mine.per_second / other.per_second for mine, other in pairs)

    report.figure(
        "process_throughput_ratio",
        ratio(PROCESS, UNWRITTEN),
        target=0.9,
        meaning="written over not written",
    )
    report.figure(
        "power_throughput_ratio",
        ratio(POWER, PROCESS),
        target=0.5,
        meaning="`power` over `process`, 32 requests waiting",
    )
    for name, turns in reads.items():
        report.row(f"{name}_per_s", median(one.per_second for one in turns), "reads a second")
        report.row(f"{name}_cpu_us", median(one.cpu_us for one in turns), "CPU of a read, workers and parent")
        report.row(f"{name}_p99_ms", median(one.p99_ms for one in turns), "of 32 waiting")
    report.row("fdatasync_p50_ms", median(syncs), "one sync of 20 kB appended, between the turns")
    report.row("fdatasync_p99_ms", quantile(syncs, 0.99), f"of {len(syncs)}")
    report.row(
        "power_p99_vs_fdatasync_p99",
        median(one.p99_ms for one in reads[POWER]) / quantile(syncs, 0.99),
        "the slowest of a hundred reads over the slowest of a hundred syncs",
    )


@contextmanager
def _serving(installation: Installation, name: str) -> Iterator[Contender]:
    bench = Path(__file__).parent
    one = replace(
        installation,
        more={
            **installation.more,
            "CACHEGATE_AUDIT_DIR": str(installation.folder / name),
            "CACHEGATE_AUDIT_DURABILITY": POWER if name == POWER else PROCESS,
        },
        program=(str(bench / "unrecorded.py"),) if name == UNWRITTEN else ("-m", "gateway"),
        log_name=f"{name}.log",
    )
    with on_cores(SERVER_CORE), ExitStack() as stack:
        port = stack.enter_context(one.serving(1))
        own = serve_pid(one, f"CACHEGATE_AUDIT_DIR={one.more['CACHEGATE_AUDIT_DIR']}")
        yield Contender(name, f"Cachegate, {name}", port, (own,))


def _sync_times(folder: Path, count: int) -> list[float]:
    """How long one sync takes, in milliseconds, after an append of about a group."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(count):
            os.write(file.fileno(), bytes(20_000))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1000)
    return taken


# Verification


def measure_verification(report: Report, size: Size) -> None:
    """A log of decisions and outcomes, as reads write it, verified on one core."""
    with tempfile.TemporaryDirectory(prefix="cg-bench-") as folder:
        audit = Path(folder) / "audit"
        _write_log(audit, size.records)
        rates = []
        for _ in range(size.verifications):
            began = time.process_time()
            found = verify(audit)
            rates.append(found.records / (time.process_time() - began))
            if not found.is_intact:
                raise RuntimeError("the benchmark's own log does not verify")
        length = sum(path.stat().st_size for path in audit.glob("*-0*.jsonl"))
    report.figure(
        "verify_records_per_s",
        max(rates),
        target=250_000,
        meaning=f"{found.records:,} records of {length / found.records:.0f} bytes, one core",
    )


def _write_log(folder: Path, records: int) -> None:
    log = AuditLog(
        folder=folder,
        node="bench",
        signing_key=Ed25519PrivateKey.generate(),
        clock=SystemClock(),
        on_left=lambda: None,
    )
    outcome = Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=4096, milliseconds=1.25)
    batch = [_admission(number) for number in range(16)]
    for _ in range(records // 32):
        for receipt in log.record_all(batch):
            receipt.close(outcome)
    log.close()


def _admission(number: int) -> Admission:
    principal = Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId(f"key_{number:020}"),
        key_name="bench",
        expires_at=None,
        tenant=TenantId(f"tenant{number:02}"),
        scopes=DEFAULT_SCOPES,
    )
    resource = Resource(
        kind=ResourceKind.FILE, model=f"tenant{number:02}/model-1/1", package="ab" * 16, file="weights.onnx"
    )
    stamp = Stamp(7, ())
    return Admission(
        request=WireRequest(
            method="GET",
            raw_path=b"/v1/models/x",
            query=b"",
            headers=((b"user-agent", b"python-requests/2.32.3"),),
            client="192.0.2.7",
            route="/v1/models/{model}/-/{package}/{file}",
            trace_id="0af7651916cd43dd8448eb211c80319c",
            received_at=0.0,
        ),
        allowed=Allowed(
            access=Access(principal=principal, action=Action.READ, resource=resource),
            model=resource.model,
            policies=("tenant-reads-own",),
            grant="own",
            stamp=stamp,
        ),
        found=HeldFile(
            descriptor=-1,
            content=b"",
            headers=Headers.of(),
            size=4096,
            identity=(1, 2, 3, 4, 5),
            model=resource.model,
            package=resource.package,
            handle="weights.onnx",
            md5="d41d8cd98f00b204e9800998ecf8427e",
            sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        stamp=stamp,
        key_stamp=stamp,
    )


# The index

SEGMENT_BYTES = 64 << 20
RARE = 100_000  # one record of so many has these
RARE_KEY, RARE_MODEL = "key_rare", "tenant00/rare/1"


def measure_index(report: Report, size: Size) -> None:
    """Make the index of large logs, and search them; follow one that is written."""
    _measure_lag(report, size.seconds)
    with ExitStack() as stack:
        kept = None
        if size is not QUICK:  # it may keep one
            kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cg-bench-")))
        for millions in size.searched:
            folder = (kept or Path.home() / ".cache" / "cachegate-bench") / f"searched-{millions}m-1"
            _have_log(folder, millions * size.million)
            _measure_indexing(report, folder, millions)
            _measure_search(report, folder, millions, size.million)


def _measure_lag(report: Report, seconds: float) -> None:
    """How long a record takes until a reader has it, while 5,000 a second are written."""
    with tempfile.TemporaryDirectory(prefix="cg-bench-") as temporary:
        folder = Path(temporary) / "audit"
        log = AuditLog(
            folder=folder,
            node="bench",
            signing_key=Ed25519PrivateKey.generate(),
            clock=SystemClock(),
            on_left=lambda: None,
        )
        order = msgspec.json.encode(IndexingOrder(folder=str(folder), node="bench")) + b"\n"
        program = "from gateway.operations.audit_indexing import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        if process.stdin is None:
            raise RuntimeError("the indexer has no input")
        process.stdin.write(order)
        process.stdin.flush()
        reader = IndexReader(folder, "bench")
        outcome = Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=4096, milliseconds=1.25)
        written: dict[str, float] = {}
        taken: list[float] = []
        cursor = reader.start()
        batch = [_admission(number) for number in range(25)]
        while not reader.has_more(cursor):
            time.sleep(0.01)
        began = due = time.perf_counter()
        while due - began < seconds or len(taken) < len(written):
            now = time.perf_counter()
            if now >= due and due - began < seconds:
                due += 2 * len(batch) / 5000
                for receipt in log.record_all(batch):
                    written[receipt.record_id] = now
                    receipt.close(outcome)
            if reader.has_more(cursor):
                page = reader.read(cursor, 1000)
                now, cursor = time.perf_counter(), page.cursor
                ids = [one.record.id for one in page.records]
                taken += [now - written[one] for one in ids if one in written]
            else:
                time.sleep(0.001)
        process.stdin.close()
        process.wait()
        log.close()
    report.row("index_lag_p50_ms", median(taken) * 1000, "until a record is readable, at 5,000 a second")
    report.row("index_lag_p99_ms", quantile(taken, 0.99) * 1000, f"of {len(taken)}")


def _have_log(folder: Path, records: int) -> None:
    """A log of so many records in segments of 64 MB, made once: hashes and heads are not those of a log."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    sample = partial / "sample"
    _write_log(sample, 64)
    [segment] = sample.glob("*-0*.jsonl")
    lines = [line for line in segment.read_bytes().splitlines() if b'"kind":"decision"' in line][:16]
    outcomes = [line for line in segment.read_bytes().splitlines() if b'"kind":"outcome"' in line][:16]
    shutil.rmtree(sample)
    chain, started = "bench.01a0c4506e15-9b714eb4", 1_790_000_000.0
    times, ids = Timestamps(), RecordIds()
    new = {b"chain": chain.encode()}

    def replace_value(found: re.Match[bytes]) -> bytes:
        return b'"%b":"%b"' % (found[1], new[found[1]])

    with ExitStack() as stack:
        number, written, file = 0, SEGMENT_BYTES, None
        for seq in range(1, records + 1):
            if file is None or written >= SEGMENT_BYTES:
                number, written = number + 1, 0
                file = stack.enter_context((partial / segment_name(chain, number)).open("wb"))
            now = started + seq / 5000
            is_decision = seq % 2 == 1
            new[b"id"], new[b"time"] = ids.next(now).encode(), times.text(now).encode()
            if is_decision:
                new[b"decision_id"] = new[b"id"]
            line = _VARIABLE.sub(replace_value, (lines if is_decision else outcomes)[seq // 2 % 16])
            line = _SEQ.sub(b'"seq":%d' % seq, line)
            if seq % RARE == 1:
                line = _KEY.sub(b'"key_id":"%b"' % RARE_KEY.encode(), line)
                line = line.replace(b"tenant00/model-1/1", RARE_MODEL.encode())
            written += file.write(line + b"\n")
    partial.rename(folder)


_VARIABLE = re.compile(rb'"(id|decision_id|chain|time)":"[^"]*"')
_SEQ = re.compile(rb'"seq":\d+')
_KEY = re.compile(rb'"key_id":"[^"]*"')


def _measure_indexing(report: Report, folder: Path, millions: int) -> None:
    shutil.rmtree(folder / "index", ignore_errors=True)
    began, cpu = time.perf_counter(), time.process_time()
    indexer = Indexer(folder, "bench")
    records = 0
    while found := indexer.step():
        records += found
    indexer.close()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = sum(path.stat().st_size for path in (folder / "index").iterdir())
    report.row(f"index_{millions}m_per_s", records / elapsed, f"records put in order, {records:,} at once")
    report.row(f"index_{millions}m_cpu_us", cpu / records * 1e6, "CPU of a record in that")
    report.row(f"index_{millions}m_bytes", size / records, "of the index, for each record")


def _measure_search(report: Report, folder: Path, millions: int, million: int) -> None:
    """The slowest of four searches of the library, and one whole command."""
    half = 1_790_000_000.0 + millions * million / 5000 / 2
    queries = {
        "a key": Query(key_id=RARE_KEY),
        "a tenant and a key": Query(tenant="tenant00", key_id=RARE_KEY),
        "a model and a time": Query(model=RARE_MODEL, since=half),
        "a tenant and another's key": Query(tenant="tenant00", key_id="key_00000000000000000001"),
    }
    taken = {}
    for name, query in queries.items():
        times = []
        for _ in range(5):
            began = time.perf_counter()
            found = sum(1 for _ in search_log(folder, query))
            times.append(time.perf_counter() - began)
        taken[name] = median(times), found
    slowest = max(taken, key=lambda name: taken[name][0])
    target = {1: 0.3, 10: 1.0}[millions]
    seconds, found = taken[slowest]
    report.figure(
        f"search_{millions}m_s",
        seconds,
        target=target,
        meaning=f"the slowest of four searches by the index, in {millions} million: {slowest}, {found} found",
    )
    page = []
    for _ in range(5):
        began = time.perf_counter()
        list(islice(search_log(folder, Query(tenant="tenant00"), is_newest_first=True), 100))
        page.append(time.perf_counter() - began)
    report.row(f"newest_{millions}m_s", median(page), "the newest 100 records of a tenant")
    settings = (f"CACHEGATE_AUDIT_DIR={folder}", "CACHEGATE_NODE=bench")
    search = ("-m", "gateway", "audit", "search", "--key-id", RARE_KEY, "--json")
    command = ["env", *settings, sys.executable, *search]
    whole = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        whole.append(time.perf_counter() - began)
    report.row(f"search_{millions}m_command_s", median(whole), "the whole command `audit search --key-id`")


def main() -> int:
    chosen = arguments_of(__doc__ or "", "fewer rounds, a smaller log").parse_args()
    size = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    console.print("three servers, one load; nothing else should run here")
    return run("Audit log", lambda report: measure(report, size), chosen)


if __name__ == "__main__":
    sys.exit(main())
