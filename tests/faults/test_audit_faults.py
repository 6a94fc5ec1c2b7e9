"""Faults of the audit folder are noticed before the next record is accepted, and survived (I5)."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Durability, Limits, verify
from gateway.model.errors import Misconfigured, Reason, Unavailable
from gateway.model.verdicts import Rejection
from tests import samples

REFUSED = Rejection(
    request=samples.wire_request(client="192.0.2.1", route="/v1/models"),
    reason=Reason.NOT_PERMITTED,
    principal=samples.principal(),  # authenticated, so that no limit for anonymous callers applies
)
NOBODY_ID = 65534
NOBODY = Rejection(request=REFUSED.request, reason=Reason.UNKNOWN_KEY)


@dataclass
class HandClock:
    time: float = 1_790_000_000.0

    def now(self) -> float:
        return self.time


class Bench:
    """An audit log and its folder, for a test to damage."""

    def __init__(self, folder, durability=Durability.PROCESS, **limits):
        self.folder = folder
        self.clock = HandClock()
        self.log = AuditLog(
            folder=folder,
            node="node-1",
            signing_key=Ed25519PrivateKey.generate(),
            clock=self.clock,
            durability=durability,
            limits=Limits(**limits),
        )
        self.accepted: list[str] = []

    @property
    def segments(self):
        return sorted(self.folder.glob("*-0*.jsonl"))

    def write(self, count=1):
        for _ in range(count):
            self.clock.time += 0.001
            self.accepted.append(self.log.reject(REFUSED))

    def must_refuse(self):
        """The next record of each kind is refused as unavailable; return the first message."""
        with pytest.raises(Unavailable) as refused:
            self.log.reject(REFUSED)
        with pytest.raises(Unavailable):
            self.log.reject(NOBODY)
        assert not self.log.is_healthy()
        assert (refused.value.dependency, refused.value.reason) == ("audit", Reason.NO_AUDIT)
        return refused.value.why

    def records(self):
        return [json.loads(line) for path in self.segments for line in path.read_bytes().splitlines()]

    def reasons_of_opening(self):
        return [record["reason"] for record in self.records() if record["kind"] == "open"]


@contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_the_record_and_leaves_no_half_line(tmp_path):
    bench = Bench(tmp_path / "audit")
    bench.write(3)
    before = bench.segments[0].read_bytes()
    with file_size_limit(len(before) + 100):  # room for a part of the next line
        why = bench.must_refuse()
        bench.must_refuse()
        assert bench.segments[0].read_bytes() == before
    bench.write(3)  # recovers by itself, at once
    assert bench.log.is_healthy()
    bench.log.close()
    report = verify(bench.folder)
    assert report.is_intact
    assert len(report.chains) == 1
    assert bench.reasons_of_opening()[-1] == f"resumed: {why}"
    kept = {record["id"] for record in bench.records()}
    assert set(bench.accepted) <= kept


@pytest.mark.root
def test_a_full_file_system_refuses_and_recovers(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", mount], check=True)
    try:
        bench = Bench(mount / "audit", segment_bytes=20_000)
        ballast = mount / "ballast"
        ballast.write_bytes(b"x" * 60_000)
        with pytest.raises(Unavailable, match="no space left"):
            bench.write(500)
        for _ in range(3):
            bench.must_refuse()
        ballast.unlink()
        bench.write(5)
        bench.log.close()
        report = verify(bench.folder)
        assert report.is_intact
        assert report.unproven == 0
        assert set(bench.accepted) <= {record["id"] for record in bench.records()}
    finally:
        subprocess.run(["umount", mount], check=True)


def test_refusals_on_a_full_disk_add_nothing_to_it(tmp_path):
    bench = Bench(tmp_path / "audit", segment_bytes=3000)
    bench.write(3)
    with file_size_limit(10):
        for _ in range(20):
            bench.must_refuse()
            bench.clock.time += 2
        sizes = {path.name: path.stat().st_size for path in bench.folder.iterdir() if path.is_file()}
        bench.must_refuse()
        assert sizes == {path.name: path.stat().st_size for path in bench.folder.iterdir() if path.is_file()}
    bench.write(1)


def _unlink(path):
    path.unlink()


def _truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def _empty(path):
    os.truncate(path, 0)


def _append(path):
    with path.open("ab") as file:
        file.write(b"x")


def _swap(path):
    content = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    path.write_bytes(content)


def _move_away(path):
    path.rename(path.with_suffix(".old"))


def _replace_by_link(path):
    _move_away(path)
    path.symlink_to("/dev/null")


def _hide_behind_a_link(path):
    _move_away(path)
    path.symlink_to(path.with_suffix(".old"))


TAMPERING = [_unlink, _truncate, _empty, _append, _swap, _move_away, _replace_by_link, _hide_behind_a_link]


@pytest.mark.parametrize("tamper", TAMPERING)
def test_a_segment_tampered_with_is_noticed_before_the_next_record(tmp_path, tamper):
    bench = Bench(tmp_path / "audit")
    bench.write(3)
    (segment,) = bench.segments
    tamper(segment)
    assert str(segment) in bench.must_refuse()
    bench.must_refuse()  # for a moment, so that readiness shows it
    bench.clock.time += 2
    bench.write(3)
    assert bench.log.is_healthy()
    bench.log.close()
    opened = next(
        record
        for path in bench.segments
        if path != segment
        for record in map(json.loads, path.read_bytes().splitlines())
        if record["kind"] == "open"
    )
    assert opened["reason"].startswith("new chain: ")
    assert opened["after_seq"] == 5  # opening, its head, three records
    report = verify(bench.folder)
    assert report.chains[-1].is_intact or report.chains[0].is_intact
    assert report.unproven == 0 or tamper is _append


@pytest.mark.parametrize("tamper", [_unlink, _truncate, _empty])
def test_verification_shows_what_tampering_took_away_although_it_was_not_yet_signed(tmp_path, tamper):
    bench = Bench(tmp_path / "audit")
    bench.write(3)
    (segment,) = bench.segments
    chain = json.loads(segment.read_bytes().splitlines()[0])["chain"]
    tamper(segment)
    bench.must_refuse()
    bench.clock.time += 2
    bench.write(1)
    report = verify(bench.folder)
    assert not report.is_intact
    assert chain in report.missing_chains or any(c.chain == chain and c.fault for c in report.chains)


def test_a_whole_folder_taken_away_is_noticed_and_made_anew(tmp_path):
    bench = Bench(tmp_path / "audit")
    bench.folder.rename(tmp_path / "elsewhere")
    bench.must_refuse()
    bench.clock.time += 2
    bench.write(1)
    assert bench.folder.is_dir()


def test_a_segment_made_read_only_is_noticed_and_the_chain_goes_on_in_the_next(tmp_path):
    bench = Bench(tmp_path / "audit")
    bench.write(2)
    bench.segments[0].chmod(0o400)
    with pytest.raises(Unavailable, match="read-only"):
        bench.write()
    bench.write(2)
    bench.log.close()
    assert len(bench.segments) == 2
    report = verify(bench.folder)
    assert report.is_intact
    assert len(report.chains) == 1


def _script(tmp_path, text):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(text))
    return path


@contextmanager
def folder_of_an_ordinary_user():
    """A folder of a user whom permissions hold, and us being that user: they do not hold root."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY_ID, NOBODY_ID)
        os.seteuid(NOBODY_ID)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_read_only_folder_refuses_once_the_segment_is_full_and_recovers():
    with folder_of_an_ordinary_user() as home:
        bench = Bench(home / "audit", segment_bytes=2500)
        bench.write(1)
        bench.folder.chmod(0o500)
        assert not bench.log.is_healthy()
        with pytest.raises(Unavailable, match="writable"):
            bench.write(20)
        size = sum(path.stat().st_size for path in bench.segments)
        for _ in range(5):
            bench.must_refuse()
        assert sum(path.stat().st_size for path in bench.segments) == size
        bench.folder.chmod(0o700)
        bench.write(5)
        assert bench.log.is_healthy()
        bench.log.close()
        assert verify(bench.folder).is_intact
        assert set(bench.accepted) <= {record["id"] for record in bench.records()}


def test_a_folder_that_cannot_be_made_does_not_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="Not a directory"):
        Bench(tmp_path / "file" / "audit")


def test_a_heads_file_that_cannot_be_written_stops_the_log_until_it_can(tmp_path):
    bench = Bench(tmp_path / "audit", head_records=3)
    heads = bench.folder / "heads.jsonl"
    saved = heads.read_bytes()
    heads.unlink()
    heads.mkdir()
    with pytest.raises(Unavailable):
        bench.write(10)
    size = bench.segments[0].stat().st_size
    for _ in range(5):
        bench.must_refuse()
    assert bench.segments[0].stat().st_size == size
    heads.rmdir()
    heads.write_bytes(saved)
    bench.write(3)
    bench.log.close()
    assert verify(bench.folder).is_intact


def test_half_a_head_that_a_crash_left_does_not_spoil_the_next(tmp_path):
    bench = Bench(tmp_path / "audit")
    heads = bench.folder / "heads.jsonl"
    heads.write_bytes(heads.read_bytes() + b'{"kind":"head","sche')
    bench.write(1)
    bench.log.close()
    report = verify(bench.folder)
    assert report.is_intact
    assert not report.problems


def test_a_sync_that_fails_ends_the_chain_because_the_disk_cannot_be_believed(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "audit", durability=Durability.POWER)
    bench.write(2)

    monkeypatch.setattr(os, "fdatasync", _fail_to_sync)
    bench.must_refuse()
    monkeypatch.undo()
    bench.clock.time += 2
    bench.write(2)
    bench.log.close()
    report = verify(bench.folder)
    assert report.is_intact
    assert len(report.chains) == 2


def test_a_record_whose_sync_failed_is_taken_back_and_is_in_no_file(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "audit", durability=Durability.POWER)
    bench.write(2)
    before = bench.segments[0].read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail_to_sync)
        bench.must_refuse()
    assert bench.segments[0].read_bytes() == before


def _fail_to_sync(_descriptor):
    raise OSError(5, "Input/output error")


def test_a_short_write_is_called_one_and_leaves_no_half_line(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "audit")
    bench.write(2)
    before = bench.segments[0].read_bytes()
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
        why = bench.must_refuse()
    assert "a short write" in why
    assert "no space" not in why
    assert bench.segments[0].read_bytes() == before
    bench.write(1)


def test_a_write_that_the_kernel_takes_in_parts_is_whole(tmp_path, monkeypatch):
    bench = Bench(tmp_path / "audit")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: 1 + len(line) // 2]))
        bench.write(3)
        bench.log.close()
    report = verify(bench.folder)
    assert (report.is_intact, report.unproven) == (True, 0)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "failed"),
    ],
)
def test_what_the_kernel_said_is_what_is_told(tmp_path, monkeypatch, number, words):
    bench = Bench(tmp_path / "audit")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        assert words in bench.must_refuse()


WRITER = """
    import importlib.util, sys
    from pathlib import Path
    specification = importlib.util.spec_from_file_location("faults", sys.argv[1])
    faults = importlib.util.module_from_spec(specification)
    sys.modules["faults"] = faults
    specification.loader.exec_module(faults)
    bench = faults.Bench(Path(sys.argv[2]), segment_bytes=50_000, head_records=50)
    while True:
        bench.write()
        print(bench.accepted[-1], flush=True)
"""


def test_a_killed_process_loses_no_record_whose_call_returned(tmp_path):
    folder = tmp_path / "audit"
    command = [sys.executable, _script(tmp_path, WRITER), __file__, folder]
    accepted: list[str] = []
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            timer = threading.Timer(30, writer.kill)
            timer.start()
            for _ in range(200):
                accepted.append(writer.stdout.readline().strip())  # noqa: PERF401 -- read as it is written
            writer.send_signal(signal.SIGKILL)
            accepted += [line.strip() for line in writer.stdout if line.endswith("\n")]
            timer.cancel()
    kept = {
        record["id"]
        for path in folder.glob("*-0*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")  # a kill may leave half a line, of a call that did not return
        for record in [json.loads(line)]
    }
    assert len(accepted) >= 400
    assert set(accepted) <= kept
    bench = Bench(folder)  # the next process cleans up after the dead one and works normally
    bench.log.close()
    report = verify(folder)
    assert report.missing_chains == ()
    assert [chain.fault for chain in report.chains] == [None, None, None]
    assert list((folder / "live").iterdir()) == []


WORKER = """
    import importlib.util, sys
    from pathlib import Path
    specification = importlib.util.spec_from_file_location("faults", sys.argv[1])
    faults = importlib.util.module_from_spec(specification)
    sys.modules["faults"] = faults
    specification.loader.exec_module(faults)
    bench = faults.Bench(Path(sys.argv[2]), segment_bytes=20_000, head_records=10)
    bench.write(300)
    bench.log.close()
"""


def test_several_processes_write_to_one_folder_without_disturbing_each_other(tmp_path):
    folder = tmp_path / "audit"
    command = [sys.executable, _script(tmp_path, WORKER), __file__, folder]
    workers = [subprocess.Popen(command) for _ in range(3)]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0, 0]
    report = verify(folder)
    assert report.is_intact
    assert report.unproven == 0
    assert len(report.chains) == 3
    kept = [json.loads(line) for path in folder.glob("*-0*.jsonl") for line in path.read_bytes().splitlines()]
    assert len([record for record in kept if record["kind"] == "decision"]) == 900
    assert len({record["id"] for record in kept}) == len(kept)
