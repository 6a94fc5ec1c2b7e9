"""The ways of the log to a SIEM that are other people's programs: rsyslog, rclone, tail; and the examples."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from gateway.adapters.redis_stream import STREAM
from gateway.audit import read_events, verify
from tests.certificates import write_certificate
from tests.faults.test_audit_consumers import NODE, fresh_with
from tests.ports import free_port
from tests.unit.adapters.conftest import start_tcp_valkey

ROOT = Path(__file__).parents[2]
CONFIGURATION = (ROOT / "deploy/rsyslog/cachegate.conf").read_text()
PAGE = (ROOT / "docs/operators/audit-delivery.md").read_text()
LINE = re.compile(
    r'\[cachegate@32473 id="(?P<id>[0-9a-f-]+)" chain="(?P<chain>[^"]+)" seq="(?P<seq>\d+)" '
    r'hash="(?P<hash>[0-9a-f]{64})"\] ?(?P<record>\{.*\})'
)  # fmt: skip


class Rsyslog:
    """A real rsyslogd with the shipped configuration, in a folder of the test."""

    def __init__(self, folder):
        folder.mkdir()
        self.port = free_port()
        self.certificate, self.output = folder / "server.pem", folder / "audit.log"
        write_certificate(self.certificate, folder / "server.key")
        self._folder = folder
        text = CONFIGURATION.replace("/etc/rsyslog.d/tls/ca.pem", str(self.certificate))
        text = text.replace("/etc/rsyslog.d/tls", str(folder)).replace("/var/spool/rsyslog", str(folder))
        text = text.replace("/var/log/cachegate-audit.log", str(self.output))
        text = text.replace("0.0.0.0", "127.0.0.1").replace('"6514"', f'"{self.port}"')
        (folder / "rsyslog.conf").write_text(text)
        self.begin()

    def begin(self):
        log = (self._folder / "rsyslog.log").open("ab")
        self.process = subprocess.Popen(
            ["rsyslogd", "-n", "-f", self._folder / "rsyslog.conf", "-i", self._folder / "pid"],
            stdout=log, stderr=log,
        )  # fmt: skip
        log.close()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def lines(self):
        text = self.output.read_text() if self.output.exists() else ""
        return [match for line in text.splitlines() if (match := LINE.fullmatch(line))]


@pytest.fixture
def valkey(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    server = start_tcp_valkey(folder, "appendonly yes")
    server.set_user("default", "on", "nopass", "~*", "+@all")
    yield f"redis://127.0.0.1:{server.port}"
    server.process.kill()
    server.process.wait()


def run_until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_real_rsyslog_gets_every_record_and_goes_on_after_its_restart(tmp_path, valkey, index_of):
    installation = fresh_with(tmp_path, valkey, CACHEGATE_AUDIT_STREAM="off")
    rsyslog = Rsyslog(tmp_path / "rsyslog")
    installation.run("audit", "consumers", "add", "logs", "--address", f"localhost:{rsyslog.port}",
                     "--ca-file", str(rsyslog.certificate), "--from-start")  # fmt: skip
    index_of(installation)
    gateway = installation.serve(workers=1)
    try:
        for name in ("one", "two", "three"):
            installation.run("tenants", "create", name)
        recorded = {event.record.id for event in read_events(installation.audit)}
        run_until(lambda: recorded <= {line["id"] for line in rsyslog.lines()})
        rsyslog.end()
        for name in ("four", "five"):
            installation.run("tenants", "create", name)
        rsyslog.begin()
        recorded = {event.record.id for event in read_events(installation.audit)}
        run_until(lambda: recorded <= {line["id"] for line in rsyslog.lines()})
    finally:
        gateway.stop()
        rsyslog.end()
    by_chain = {}
    for line in rsyslog.lines():
        record = json.loads(line["record"])
        assert (record["id"], record["hash"], str(record["seq"])) == (line["id"], line["hash"], line["seq"])
        by_chain.setdefault(line["chain"], set()).add(int(line["seq"]))
    for numbers in by_chain.values():  # no number is missing: nothing was lost
        assert numbers == set(range(1, len(numbers) + 1))


def test_rclone_copies_closed_segments_and_the_copy_verifies(tmp_path, installation):
    [command] = re.findall(r"^rclone copy (.+)$", PAGE, re.MULTILINE)
    assert installation.audit.is_dir()
    target = tmp_path / "copy"
    words = [
        str(installation.audit)
        if word == "/var/lib/cachegate/audit"
        else str(target)
        if ":" in word
        else word
        for word in command.replace("'", "").split()
    ]
    subprocess.run(["rclone", "copy", "--config", "/dev/null", *words], check=True, capture_output=True)
    assert verify(target).is_intact
    names = {path.name for path in target.iterdir()}
    assert {"heads.jsonl", "signing.pub"} <= names
    assert not (target / "consumers").exists()
    assert not (target / "live").exists()


def test_a_tail_of_files_gets_every_record_and_follows_new_segments(tmp_path, installation):
    before = {event.record.id for event in read_events(installation.audit)}
    out = tmp_path / "tailed"
    [command] = re.findall(r"^cachegate audit tail (.+)$", PAGE, re.MULTILINE)
    with out.open("wb") as file:
        following = subprocess.Popen(
            [sys.executable, "-m", "gateway", "audit", "tail", *command.split()],
            env=installation.variables(), cwd=installation.folder, stdout=file,
        )  # fmt: skip

    def ids():
        return {json.loads(line)["id"] for line in out.read_bytes().split(b"\n")[:-1]}

    try:
        run_until(lambda: before <= ids())
        installation.run("tenants", "create", "acme")
        now = {event.record.id for event in read_events(installation.audit)}
        run_until(lambda: now <= ids())
    finally:
        following.send_signal(signal.SIGINT)
        following.wait()


def test_the_example_consumer_of_the_stream_prints_every_record(tmp_path, valkey, index_of):
    installation = fresh_with(tmp_path, valkey)
    with redis.Redis.from_url(valkey) as client:
        client.xgroup_create(STREAM, "siem", "0", mkstream=True)
    index_of(installation)
    gateway = installation.serve(workers=1)
    out = tmp_path / "consumed"
    with out.open("wb") as file:
        consumer = subprocess.Popen(
            [sys.executable, ROOT / "docs/examples/stream_consumer.py", valkey, "siem"], stdout=file
        )
    try:
        installation.run("tenants", "create", "acme")
        recorded = {event.record.id for event in read_events(installation.audit)}
        run_until(lambda: recorded <= {json.loads(line)["id"] for line in out.read_bytes().split(b"\n")[:-1]})
    finally:
        consumer.kill()
        consumer.wait()
        gateway.stop()


@pytest.fixture
def index_of():
    from tests.audit_receivers import start_index  # noqa: PLC0415 -- with redis and a server, for these alone

    started = []
    yield lambda installation: started.append(start_index(installation.audit, NODE))
    for one in started:
        one.kill()
        one.wait()
