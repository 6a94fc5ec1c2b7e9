"""A disk that does not answer: no byte leaves, readiness says so, and the gateway goes on once it can.

The disk is a real one: a file system of its own that is frozen (`fsfreeze`). Each write and each sync to it
then waits in the kernel, where no signal reaches the process, until it is thawed.
"""

from __future__ import annotations

import json
import subprocess
import threading
from contextlib import contextmanager, suppress

import pytest

from gateway.audit import read_events, verify

pytestmark = pytest.mark.root

MEGABYTES = 48


class Disk:
    """A file system in a file."""

    def __init__(self, folder):
        self.image, self.mount = folder / "disk.img", folder / "disk"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        run("mkfs.ext4", "-q", "-F", self.image)
        run("mount", "-o", "loop", self.image, self.mount)
        self.is_frozen = False

    def freeze(self):
        run("fsfreeze", "--freeze", self.mount)
        self.is_frozen = True

    def thaw(self):
        if self.is_frozen:
            run("fsfreeze", "--unfreeze", self.mount)
            self.is_frozen = False

    @contextmanager
    def frozen(self):
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def remount(self, how):
        run("mount", "-o", f"remount,{how}", self.mount)


def run(*arguments):
    subprocess.run(list(map(str, arguments)), check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path)
    try:
        yield made
    finally:
        made.thaw()
        run("umount", "--lazy", made.mount)


@pytest.fixture
def serve_on(site, serve, disk):
    def start(**environment):
        more = {f"CACHEGATE_{name}": value for name, value in environment.items()}
        gateway = serve(site.installation, CACHEGATE_AUDIT_DIR=str(disk.mount / "audit"), **more)
        gateway.await_ready()
        return gateway

    return start


@pytest.fixture(autouse=True)
def _no_ahead(site):
    site.installation.environment["CACHEGATE_PIN_IN_BACKGROUND"] = "off"  # it would record meanwhile


def readiness(gateway):
    return json.loads(gateway.ops.get("/readyz").body)


def records(disk, kind):
    found = [json.loads(event.line) for event in read_events(disk.mount / "audit")]
    return [one for one in found if one["kind"] == kind]


def in_background(call):
    """Its result, in a list once it is there."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


class TestPower:
    def test_requests_are_answered_503_and_the_loop_goes_on(self, disk, serve_on, site, paths, eventually):
        gateway = serve_on(AUDIT_DURABILITY="power", AUDIT_PATIENCE_SECONDS="1")
        assert gateway.wire.get(paths.small, site.token).status == 200
        [worker] = gateway.worker_pids()
        with disk.frozen():
            answer = gateway.wire.get(paths.small, site.token)
            assert answer.status == 503
            assert paths.content not in answer.body
            assert gateway.wire.get(paths.small, site.token).status == 503  # at once: it is known by now
            assert gateway.wire.get("/nowhere").status == 503
            found = readiness(gateway)
            assert found["workers"] == {"expected": 1, "answering": 1}  # the loop answers
            assert found["checks"]["audit"] is False
        eventually(lambda: readiness(gateway)["ready"], seconds=60)
        answer = gateway.wire.get(paths.small, site.token)
        assert (answer.status, answer.body) == (200, paths.content)
        assert gateway.worker_pids() == [worker]
        eventually(lambda: records(disk, "gap"), seconds=60)
        gateway.stop()
        [gap, *_] = records(disk, "gap")
        assert gap["refused"] >= 2
        assert verify(disk.mount / "audit").is_intact
        sent = {one["decision_id"] for one in records(disk, "outcome") if one["ending"] == "complete"}
        allowed = {one["id"] for one in records(disk, "decision") if one["decision"] == "allow"}
        withdrawn = {one["decision_id"] for one in records(disk, "outcome") if one["ending"] == "withdrawn"}
        assert len(sent) == 2
        assert allowed == sent | withdrawn


class TestProcess:
    def test_a_worker_that_hangs_answers_nobody_and_is_replaced(
        self, disk, serve_on, site, paths, eventually
    ):
        gateway = serve_on(HANG_SECONDS="4")
        assert gateway.wire.get(paths.small, site.token).status == 200
        [worker] = gateway.worker_pids()
        disk.freeze()
        thread, got = in_background(lambda: _answer_or_none(gateway, paths.small, site.token))
        eventually(lambda: readiness(gateway)["workers"] == {"expected": 1, "answering": 0}, seconds=60)
        assert not readiness(gateway)["ready"]
        eventually(lambda: "as when a write hangs" in gateway.log(), seconds=60)
        assert got == []  # no byte left
        disk.thaw()
        thread.join()
        assert got == [None]  # it was killed before it could go on
        eventually(lambda: readiness(gateway)["ready"], seconds=60)
        assert gateway.worker_pids() != [worker]
        assert gateway.wire.get(paths.small, site.token).body == paths.content
        assert b"cachegate_workers_hung_total 1.0" in gateway.ops.get("/metrics").body
        gateway.stop()
        [gap] = records(disk, "gap")  # by the worker that replaced it
        assert "did not answer" in gap["why"]
        assert gap["since"] < gap["until"]
        assert verify(disk.mount / "audit").is_intact


def _answer_or_none(gateway, path, token):
    try:
        with gateway.wire.connect(timeout=120) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            return connection.recv(1) or None
    except ConnectionError:
        return None


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_read_only_remount_refuses_until_it_is_writable_again(
    disk, serve_on, site, paths, eventually, durability
):
    gateway = serve_on(AUDIT_DURABILITY=durability)
    assert gateway.wire.get(paths.small, site.token).status == 200
    # Files that are open for writing keep it from becoming read-only, unless it does so itself, on an error.
    disk.remount("abort")
    eventually(lambda: not readiness(gateway)["ready"], seconds=60)
    answer = gateway.wire.get(paths.small, site.token)
    assert answer.status == 503
    assert paths.content not in answer.body
    gateway.stop()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk_refuses_and_goes_on_when_there_is_room(
    disk, serve_on, site, paths, eventually, durability
):
    gateway = serve_on(AUDIT_DURABILITY=durability)
    assert gateway.wire.get(paths.small, site.token).status == 200
    ballast = disk.mount / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))

    def is_refused():
        answer = gateway.wire.get(paths.small, site.token)
        assert answer.status in {200, 503}  # the last block of the segment may have room
        assert (answer.status == 200) == (paths.content in answer.body)
        # Whatever else is on the disk may free a block in between: then it is full again after some requests.
        return answer.status == 503 and readiness(gateway)["checks"]["audit"] is False

    eventually(is_refused, seconds=60)
    ballast.unlink()
    eventually(lambda: readiness(gateway)["ready"], seconds=60)
    assert gateway.wire.get(paths.small, site.token).body == paths.content
    eventually(lambda: records(disk, "gap"), seconds=60)
    gateway.stop()
    [gap, *_] = records(disk, "gap")
    assert "no space left" in gap["why"]
    assert gap["refused"] >= 1
    assert verify(disk.mount / "audit").is_intact
