"""Consumers of the log beside kills, restarts, full streams and targets that hang: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_stream import STREAM
from gateway.assembly.audit_consumers import ConsumersOrder
from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.audit import AuditLog, Limits, read_events
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.head import Signer
from gateway.audit.index import IndexReader, parse_cursor
from gateway.audit.keeping.keeper import Bounds, Keeper
from gateway.audit.record import WorkerRecord
from tests.audit_kills import Clients
from tests.audit_receivers import (
    SECRET,
    PushReceiver,
    StreamReader,
    SyslogReceiver,
    order_bytes,
    start_index,
)
from tests.faults.conftest import SMALL, SMALL_PATH, furnish
from tests.unit.adapters.conftest import start_tcp_valkey

ROUNDS = int(os.environ.get("CACHEGATE_KILL_ROUNDS", "8"))  # noqa: TID251 -- the test's own
RECORDS = int(os.environ.get("CACHEGATE_CONSUMED_RECORDS", "100000"))  # noqa: TID251 -- as above
RUNNER = b"operations.audit_consumers"
NODE = "node-1"


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    server = start_tcp_valkey(folder, "appendonly yes", "appendfsync everysec")
    server.set_user("default", "on", "nopass", "~*", "+@all")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def redis_url(server):
    return f"redis://127.0.0.1:{server.port}"


@pytest.fixture
def receivers(tmp_path, redis_url):
    push, syslog, stream = PushReceiver(failing=0.1), SyslogReceiver(tmp_path), StreamReader(redis_url)
    yield push, syslog, stream
    for one in (push, syslog, stream):
        one.end()


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "push.secret"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def fresh_with(tmp_path, redis_url, **more):
    """An installation whose facts are on this server."""
    from tests.conftest import Installation  # noqa: PLC0415 -- a class, no test

    (tmp_path / "cache").mkdir()
    installation = Installation(tmp_path)
    installation.environment |= {
        "CACHEGATE_REDIS_URL": redis_url,
        "CACHEGATE_AUDIT_STREAM": "on",
        "CACHEGATE_AUDIT_SEGMENT_MEGABYTES": "1",
        "CACHEGATE_NODE": NODE,
        **more,
    }
    return installation.init()


def register(installation, push, syslog, secret_file):
    installation.run("audit", "consumers", "add", "push", "--url", push.url, "--plain",
                     "--secret-file", str(secret_file), "--from-start")  # fmt: skip
    installation.run("audit", "consumers", "add", "logs", "--address", syslog.address,
                     "--ca-file", str(syslog.certificate), "--from-start")  # fmt: skip


def runner_pids():
    """The processes that deliver, of any gateway that was started here."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if RUNNER in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def runner_of(gateway):
    """The process that delivers, of this gateway."""
    workers = gateway.worker_pids()
    for pid in runner_pids():
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if parent in workers:
                return pid
    return None


def all_ids(folder):
    return {event.record.id for event in read_events(folder)}


@pytest.mark.timeout(200 + 30 * ROUNDS)
def test_whatever_is_killed_no_consumer_misses_a_record_that_a_client_got(
    tmp_path, redis_url, receivers, secret_file, eventually
):
    push, syslog, stream = receivers
    installation = fresh_with(tmp_path, redis_url)
    site = furnish(installation, {"small.bin": SMALL})
    register(installation, push, syslog, secret_file)
    gateway = installation.serve(workers=2)
    index = start_index(installation.audit, NODE)
    clients = Clients(gateway.wire, SMALL_PATH, site.token)
    seed = random.randrange(1 << 30)
    choose = random.Random(seed)
    try:
        for _ in range(ROUNDS):
            got = len(clients.records)
            eventually(lambda got=got: len(clients.records) > got + 50, seconds=60)
            time.sleep(choose.uniform(0, 0.5))  # the moment, not a wait for anything
            match choose.choice(["worker", "runner", "push", "syslog", "stream"]):
                case "worker":
                    victims = gateway.worker_pids()[:1]
                case "runner":
                    victims = [one for one in [runner_of(gateway)] if one is not None]
                case name:
                    victims = []
                    receiver = {"push": push, "syslog": syslog, "stream": stream}[name]
                    receiver.end()
                    receiver.begin()
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        clients.end()
        assert clients.records
        for receiver in receivers:
            receiver.await_all(clients.records)
    finally:
        clients.end()
        gateway.stop()
        index.kill()
        index.wait()
    assert push.bad_signatures == 0, f"seed {seed}"
    assert stream.marks == []


class Consumption:
    """A log that is written, indexed, kept within bounds and delivered, without a gateway."""

    def __init__(self, folder, redis_url, push, syslog, secret_file):
        self.folder = folder
        folder.mkdir(mode=0o700)
        key_file = folder.parent / "audit.pem"
        create_signing_key(key_file)
        self.key = load_signing_key(key_file)
        self.log = self.open_log(segment_bytes=256 << 10)
        registry = ConsumerRegistry(folder)
        now = "2030-01-01T00:00:00.000000Z"
        registry.add(
            "push", "push", {"url": push.url, "plain": "yes", "secret_file": str(secret_file)}, now=now
        )
        registry.add("logs", "syslog", {"host": "localhost", "port": str(syslog.port),
                                        "ca_file": str(syslog.certificate)}, now=now)  # fmt: skip
        self.order = ConsumersOrder(
            folder=str(folder), node=NODE, signing_key_file=str(key_file), redis_url=redis_url,
            has_stream=True, stream_bytes=512 << 20,
        )  # fmt: skip
        self.index = start_index(folder, NODE)
        self.runner = self.start_runner()

    def open_log(self, **limits):
        return AuditLog(
            folder=self.folder, node=NODE, signing_key=self.key, clock=SystemClock(), limits=Limits(**limits)
        )

    def start_runner(self):
        boot = "from gateway.operations.audit_consumers import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", boot], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        process.stdin.write(order_bytes(self.order))
        process.stdin.flush()
        return process

    def keep(self):
        """One round: everything that is closed is packed, and what consumers have is removed."""
        bounds = Bounds(pack_seconds=0.0, keep_bytes=1 << 20, wait_seconds=3600.0)
        return Keeper(self.folder, NODE, Signer(self.key), bounds, self.open_log).run(SystemClock().now())

    def restart_runner(self):
        self.runner.kill()
        self.runner.wait()
        self.runner.stdin.close()
        self.runner = self.start_runner()

    def restart_index(self):
        self.index.kill()
        self.index.wait()
        self.index = start_index(self.folder, NODE)

    def close(self):
        self.runner.stdin.close()
        self.runner.wait()
        self.index.kill()
        self.index.wait()


@pytest.mark.timeout(300 + RECORDS // 300)
def test_a_great_many_records_arrive_through_rotation_packing_retention_and_restarts(
    tmp_path, redis_url, receivers, secret_file
):
    push, syslog, _ = receivers
    consumption = Consumption(tmp_path / "audit", redis_url, push, syslog, secret_file)
    written, removed = set(), 0
    try:
        for batch in range(20):
            for number in range(RECORDS // 20):
                written.add(
                    consumption.log.note(WorkerRecord, worker=f"w{number}", state="started", version="1")
                )
            consumption.log.tick(SystemClock().now())
            match batch % 5:
                case 0:
                    consumption.restart_runner()
                case 1:
                    push.end()
                    push.begin()
                case 2:
                    syslog.end()
                    syslog.begin()
                case 3:
                    receivers[2].end()
                    receivers[2].begin()
                case _:
                    consumption.restart_index()
            removed += consumption.keep().removed
        consumption.log.close()
        for receiver in receivers:
            receiver.await_all(written, seconds=120 + RECORDS / 500)
        deadline = time.monotonic() + 60
        while not removed and time.monotonic() < deadline:  # consumers note what they have once a second
            removed += consumption.keep().removed
            time.sleep(0.2)
    finally:
        consumption.close()
    assert len(written) == RECORDS // 20 * 20
    assert removed > 0
    assert receivers[2].marks == []


def missing_of(stream, ids, folder):
    """What a reader lacks that is not behind a mark. On a busy machine it falls behind the cap, too."""
    missing = ids - stream.ids
    if missing and stream.marks:
        reader, cursor = IndexReader(folder, NODE), parse_cursor(stream.marks[0][NODE])
        while not (page := reader.read(cursor, 1000)).is_at_end:
            missing -= {one.record.id for one in page.records}
            cursor = page.cursor
        missing -= {one.record.id for one in page.records}
    return missing


def test_a_target_that_hangs_and_a_group_that_never_reads_harm_nobody(
    tmp_path, server, redis_url, secret_file, eventually
):
    push = PushReceiver()
    push.hangs.set()
    stream = StreamReader(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.xgroup_create(STREAM, "dead", "0")
        installation = fresh_with(tmp_path, redis_url, CACHEGATE_AUDIT_STREAM_MEGABYTES="1")
        site = furnish(installation, {"small.bin": SMALL})
        installation.run("audit", "consumers", "add", "push", "--url", push.url, "--plain",
                         "--secret-file", str(secret_file), "--from-start")  # fmt: skip
        gateway = installation.serve(workers=1)
        index = start_index(installation.audit, NODE)
        clients = Clients(gateway.wire, SMALL_PATH, site.token)
        try:
            eventually(lambda: len(clients.records) > 3000, seconds=60)
            made = installation.json("keys", "create", "--tenant", "acme")
            assert gateway.wire.get(SMALL_PATH, made["token"]).status == 200
            revoked = installation.json("keys", "revoke", made["key_id"])
            assert revoked.get("is_sure", True)
            assert gateway.wire.get(SMALL_PATH, made["token"]).status == 401
            eventually(lambda: len(clients.records) > 5000, seconds=60)
            clients.end()
            eventually(lambda: not missing_of(stream, clients.records, installation.audit))
            assert clients.statuses == {200}
            assert client.memory_usage(STREAM, samples=0) <= 1 << 20
            assert len(push.ids) == 0
            lag = 'cachegate_audit_consumer_lag_records{consumer="push"}'
            eventually(lambda: gateway.metrics().get(lag, 0) > 1000, seconds=60)
            assert gateway.metrics()['cachegate_audit_consumer_lag_records{consumer="stream"}'] < 1000
            push.hangs.clear()
            push.freed.set()
            push.await_all(clients.records)
            marks = [one for _, one in client.xreadgroup("dead", "one", {STREAM: ">"}, count=100_000)[0][1]]
            lost = {one[b"lost"] for one in marks if b"lost" in one}
            assert lost == {b"dead"} | ({stream.group.encode()} if stream.marks else set())
        finally:
            push.freed.set()
            clients.end()
            gateway.stop()
            index.kill()
            index.wait()
            push.end()
            stream.end()
