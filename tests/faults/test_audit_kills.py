"""A process that records is killed (`kill -9`) at each of its system calls on the disk: this is never damage.

The calls are counted in a child, which kills itself before one of them, or in the middle of a write. What is
then on disk is verified as it is, again after the next start of the node, and once more after a record was
appended to each chain.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit import AuditLog, Damage, Durability, Ending, Limits, verify
from gateway.audit.record import ChainPosition, OpenRecord, encode, seal
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import Change, Rejection
from tests import samples

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

REQUEST = samples.wire_request(client="192.0.2.1", route="/v1/models")
REFUSED = Rejection(
    request=REQUEST,
    reason=Reason.NOT_PERMITTED,
    principal=samples.principal(),
)  # fmt: skip
START = 1_790_000_000.0
NODE = "node-1"
KEY = Ed25519PrivateKey.generate()


class Clock:
    def __init__(self, time):
        self.time = time

    def now(self):
        self.time += 0.001
        return self.time


def open_log(folder, time=START, durability=Durability.PROCESS):
    return AuditLog(
        folder=folder, node=NODE, signing_key=KEY, clock=Clock(time), durability=durability,
        limits=Limits(segment_bytes=3000, head_records=4),
    )  # fmt: skip


def gateway_life(folder, tell, durability):
    """A worker: it records, signs heads, fills segments, and ends."""
    log = open_log(folder, durability=durability)
    for _ in range(9):
        tell(log.reject(REFUSED))
    log._clock.time += 12
    log.tick(log._clock.time)
    tell(log.reject(REFUSED))
    log.close()


def command_life(folder, tell, durability):
    """A command: one change, 50 ms in all."""
    log = open_log(folder, durability=durability)
    receipt = log.change(Change(actor="cli:root", action="keys.create", received_at=1.0))
    tell(receipt.record_id)
    receipt.close(generation=1, result="done")
    log.close()


def life_after_a_kill(folder, tell, durability):
    """A start that finds what a killed worker left, and is killed while it records that."""
    first = open_log(folder, durability=durability)
    for _ in range(3):
        tell(first.reject(REFUSED))
    first._writer._segment.close()  # both locks go, as with the process
    os.close(first._writer._live._descriptor)
    log = open_log(folder, time=START + 5, durability=durability)
    tell(log.reject(REFUSED))
    log.close()


def life_with_a_lost_segment(folder, tell, durability):
    """A worker whose segment is made read-only, and then appended to by an attacker: it starts a new one."""
    log = open_log(folder, durability=durability)
    tell(log.reject(REFUSED))
    segment = max(folder.glob("*-0*.jsonl"))
    segment.chmod(0o400)
    for _ in range(2):
        try:
            tell(log.reject(REFUSED))
        except Unavailable:
            log._clock.time += 2
    log.close()


LIVES = [gateway_life, command_life, life_after_a_kill, life_with_a_lost_segment]
COUNTED = [
    (os, "open"), (os, "write"), (os, "close"), (os, "rename"), (os, "unlink"), (os, "mkdir"),
    (os, "ftruncate"), (os, "fdatasync"), (os, "fsync"), (os, "pread"), (fcntl, "flock"),
    (os, "link"), (os, "replace"), (os, "utime"),
]  # fmt: skip


def live_and_be_killed(live, folder, at, *, is_torn, durability):
    """Live in a child that kills itself in front of its call number `at`; the ids that it was given.

    None when it lived to its end.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _count_calls(at, is_torn=is_torn, spared=writing)
            live(folder, lambda record_id: REAL_WRITE(writing, f"{record_id}\n".encode()), durability)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        ids = told.read().split()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}
    return None if status == 0 else ids


REAL_WRITE = os.write


def _count_calls(at, *, is_torn, spared):
    left = at
    counted_calls = [call for call in COUNTED if is_torn or call[1] == "write"]  # else all is tried twice

    def counted(real, name):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                if is_torn and name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for module, name in counted_calls:
        setattr(module, name, counted(getattr(module, name), name))


def assert_undamaged(folder, where):
    if not list(folder.glob("*.jsonl")):
        return None
    report = verify(folder, trusted_keys=[KEY.public_key()])
    assert report.is_intact, (where, report)
    return report


@pytest.mark.parametrize("is_torn", [False, True], ids=["in front", "within"])
@pytest.mark.parametrize(
    "durability", [Durability.PROCESS, pytest.param(Durability.POWER, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("live", LIVES)
def test_a_kill_at_any_call_is_no_damage_and_loses_nothing_that_was_acknowledged(
    tmp_path, live, durability, is_torn
):
    for at in range(1, 2000):
        folder = tmp_path / str(at)
        ids = live_and_be_killed(live, folder, at, is_torn=is_torn, durability=durability)
        if ids is None:
            break
        assert_undamaged(folder, (at, "as it was left"))
        open_log(folder, time=START + 30).close()
        report = assert_undamaged(folder, (at, "after the next start"))
        kept = {json.loads(line)["id"] for line in whole_lines(folder)}
        assert set(ids) <= kept
        proven = {one for chain in report.chains for one in ids_up_to(folder, chain.chain, chain.proven_seq)}
        assert len(kept) - len(proven) == report.unproven
        assert list((folder / "live").iterdir()) == []
    assert at > (20 if is_torn else 4)


def whole_lines(folder, chain=""):
    """The whole lines of all segments, or of those of one chain."""
    paths = sorted(folder.glob(f"{chain}*-0*.jsonl"))
    return [line for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


def ids_up_to(folder, chain, seq):
    records = map(json.loads, whole_lines(folder, chain))
    return [record["id"] for record in records if record["seq"] <= seq]


def forged_line(folder, chain, time):
    """A record with right hashes, as an attacker with write access to the folder can make it."""
    last = json.loads(whole_lines(folder, chain)[-1])
    links = ChainPosition(chain)
    links.seq, links.hash = last["seq"], last["hash"]
    record = OpenRecord(
        schema=1, id="forged", chain=chain, seq=links.seq + 1, prev=links.hash, time=time, node=NODE,
        reason="forged",
    )  # fmt: skip
    return seal(encode(record))[0]


def test_after_the_next_start_nothing_can_be_added_to_what_a_killed_process_left(tmp_path):
    for at in range(1, 2000):
        folder = tmp_path / str(at)
        if live_and_be_killed(gateway_life, folder, at, is_torn=False, durability=Durability.PROCESS) is None:
            break
        open_log(folder, time=START + 30).close()
        for chain in verify(folder, trusted_keys=[KEY.public_key()]).chains:
            assert chain.ending in {Ending.CLOSED, Ending.RECOVERED}
            path = max(folder.glob(f"{chain.chain}-*.jsonl"))
            before = path.read_bytes()
            last = json.loads(whole_lines(folder, chain.chain)[-1])
            path.write_bytes(
                before[: before.rfind(b"\n") + 1] + forged_line(folder, chain.chain, last["time"])
            )
            report = verify(folder, trusted_keys=[KEY.public_key()])
            fault = next(one.fault for one in report.chains if one.chain == chain.chain)
            assert fault is not None, (at, chain)
            assert fault.damage in {Damage.AFTER_CLOSE, Damage.AFTER_RECOVERED}
            assert (fault.file, fault.seq) == (path.name, last["seq"] + 1)
            path.write_bytes(before)


@contextmanager
def killed_worker(folder):
    """A worker with three records behind its head, killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        log = open_log(folder)
        for _ in range(3):
            log.reject(REFUSED)
        REAL_WRITE(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_start_beside_a_process_that_lives_recovers_nothing(tmp_path):
    folder = tmp_path / "audit"
    with killed_worker(folder):
        for path in (folder / "live").iterdir():
            path.unlink()  # who may write to the folder can do that: the segment is locked all the same
        open_log(folder, time=START + 5).close()
        report = verify(folder, trusted_keys=[KEY.public_key()])
        assert report.is_intact
        assert Ending.RECOVERED not in {chain.ending for chain in report.chains}


def test_a_segment_that_is_written_is_locked_whatever_live_says(tmp_path):
    folder = tmp_path / "audit"
    with killed_worker(folder):
        [live] = (folder / "live").iterdir()
        content = live.read_bytes()
        live.unlink()
        live.write_bytes(content)  # as a killed process leaves it: there, and not locked
        [segment] = folder.glob("*-0*.jsonl")
        added = segment.with_name(segment.name.replace("-000001", "-000002"))
        added.touch()
        open_log(folder, time=START + 5).close()
        assert live.exists()
        endings = {chain.ending for chain in verify(folder, trusted_keys=[KEY.public_key()]).chains}
        assert Ending.RECOVERED not in endings
        added.unlink()
    open_log(Path(folder), time=START + 8).close()
    endings = [chain.ending for chain in verify(folder, trusted_keys=[KEY.public_key()]).chains]
    assert sorted(endings) == [Ending.CLOSED, Ending.CLOSED, Ending.RECOVERED]
