"""Transfers being sent: cut within a second of the end of their key or tenant, and no other is cut.

A reader may be slow, or not read at all; it gets what its own kernel holds by then, and no more. While it is
unknown whether the key is valid, nothing more is sent.
"""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import termios
import threading
import time
from contextlib import contextmanager
from functools import partial

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import grants, keys, tenants
from gateway.model.names import parse_pattern, parse_tenant_id

MEBIBYTE = 1 << 20
BIG_BYTES = 200 * MEBIBYTE
OWNERS = ("acme", "globex", "umbrella")
CUT_SECONDS = 1.0
MAX_PIECE_BYTES = 1 << 16
UMBRELLA = parse_tenant_id("umbrella")


@pytest.fixture(scope="module")
def fleet(build_fleet, tools, tmp_path_factory):
    source = tmp_path_factory.mktemp("big") / "big.bin"
    block = random.Random(5).randbytes(MEBIBYTE)
    with source.open("wb") as file:
        file.writelines(block for _ in range(BIG_BYTES // MEBIBYTE))

    def prepare(fleet):
        samples = [
            SampleModel(model_id=f"{owner}/big/1", packages={tools.package: {"weights.onnx": source}})
            for owner in OWNERS
        ]
        write_sample_cache(fleet.installation.cache_root, samples)
        source.unlink()

    return build_fleet(workers=2, is_remote=True, prepare=prepare)


class Download:
    """One reader of the big file, at its own pace."""

    def __init__(self, fleet, tools, who, bytes_per_second, *, model=None, ranges=None):
        self.received = 0
        self.last_at = time.monotonic()
        self.has_ended = threading.Event()
        self.pace = bytes_per_second
        self._connection = socket.socket()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._connection.settimeout(30)
        self._connection.connect((fleet.wire.host, fleet.wire.port))
        path = tools.path_of(model or f"{fleet.tenants_of[who]}/big/1")
        raw = tools.request_for(path, fleet.tokens[who])
        if ranges is not None:
            raw = raw.removesuffix(b"\r\n") + b"Range: bytes=%b\r\n\r\n" % ranges
        self._connection.sendall(raw)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._connection.recv(1)
        assert head.startswith(b"HTTP/1.1 200 " if ranges is None else b"HTTP/1.1 206 "), head
        lines = dict(line.split(": ", 1) for line in head.decode().lower().strip().split("\r\n")[1:])
        self.record_id = lines["cachegate-record"]
        self.is_closing = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def waiting_bytes(self):
        """What the client's own kernel holds."""
        held = fcntl.ioctl(self._connection.fileno(), termios.FIONREAD, struct.pack("i", 0))
        return struct.unpack("i", held)[0]

    def close(self):
        self.is_closing.set()
        self._thread.join()
        self._connection.close()

    def _read(self):
        """Read at this pace; a pace of 0 means not to read."""
        while not self.is_closing.is_set() and self.received < BIG_BYTES:
            if not self.pace:
                time.sleep(0.005)
                continue
            try:
                piece = self._connection.recv(min(MAX_PIECE_BYTES, max(100, self.pace // 50)))
            except ConnectionResetError:
                break
            if not piece:
                break
            self.received += len(piece)
            self.last_at = time.monotonic()
            self.is_closing.wait(len(piece) / self.pace)
        self.has_ended.set()


SLOW, FAST, FLAT_OUT, NOT_AT_ALL = 10_000, 4_000_000, 10**12, 0


@contextmanager
def downloads(fleet, tools, *wanted):
    """Several transfers at once, all past their first bytes."""
    running = [Download(fleet, tools, who, pace) for who, pace in wanted]
    try:
        time.sleep(0.4)
        assert not any(one.has_ended.is_set() for one in running)
        yield running
    finally:
        for one in running:
            one.close()


def issue(fleet, who, tenant, **order):
    new = fleet.new_key(who, tenant, **order)
    fleet.tenants_of = {**getattr(fleet, "tenants_of", {}), who: tenant}
    return new


def verify_cut(download, returned_at):
    """After a second nothing more arrives than what the client's kernel holds by then."""
    time.sleep(max(0.0, returned_at + CUT_SECONDS - time.monotonic()))
    received, waiting = download.received, download.waiting_bytes()
    if download.has_ended.is_set():
        assert download.last_at < returned_at + CUT_SECONDS
        assert download.received < BIG_BYTES
        return
    download.pace = FLAT_OUT  # read all there is: is it more than the kernel held?
    assert download.has_ended.wait(5), "the connection was not closed"
    # Between the two measurements above the reader may have read a piece.
    assert download.received <= received + waiting + MAX_PIECE_BYTES, "bytes came that were not delivered yet"
    assert download.received < BIG_BYTES


def ending(fleet, record_id):
    return fleet.installation.outcome_of(record_id)["ending"]


def disable(fleet):
    edit = partial(keys.disable_key, key_id=fleet.key_ids["ended"], now=SystemClock().now())
    return fleet.change(edit, action="keys.disable", key_id=fleet.key_ids["ended"])


ENDS = {
    "keys revoke": lambda fleet: fleet.revoke("ended"),
    "keys disable": disable,
    "tenants suspend": lambda fleet: fleet.change(
        lambda changes: tenants.suspend_tenant(changes, tenant_id=UMBRELLA)
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_it_stops_within_a_second_for_every_kind_of_reader_and_others_go_on(end, fleet, tools, eventually):
    issue(fleet, "ended", "umbrella")
    issue(fleet, "other", "globex")
    wanted = [("ended", pace) for pace in (SLOW, FAST, NOT_AT_ALL)]
    with downloads(fleet, tools, *wanted, ("other", FAST), ("other", NOT_AT_ALL)) as running:
        barrier = ENDS[end](fleet).barrier
        returned_at = time.monotonic()
        assert barrier.is_sure
        *ended, other, idle = running
        before = other.received
        for one in ended:
            verify_cut(one, returned_at)
        assert {ending(fleet, one.record_id) for one in ended} == {"revoked"}
        idle.pace = FAST
        eventually(lambda: other.received > before and idle.received > MEBIBYTE // 4)
        assert not other.has_ended.is_set()
        assert not idle.has_ended.is_set()
    fleet.change(lambda changes: tenants.resume_tenant(changes, tenant_id=UMBRELLA))


LIVES_SECONDS = 5.0
PARTS = b"0-99999999,100000005-199999999"


@pytest.mark.parametrize(
    ("pace", "ranges"),
    [(FAST, None), (SLOW, None), (NOT_AT_ALL, None), (FAST, PARTS)],
    ids=["fast", "slow", "not at all", "ranges"],
)
def test_it_ends_with_the_time_of_its_key(pace, ranges, fleet, tools):
    """No fact changes meanwhile: only time ends the key."""
    issue(fleet, "short-lived", "umbrella", lives_seconds=LIVES_SECONDS)
    one = Download(fleet, tools, "short-lived", pace, ranges=ranges)
    try:
        assert ending(fleet, one.record_id) == "expired"  # waits for it
        one.pace = FLAT_OUT  # take what is there
        assert one.has_ended.wait(20), "the connection was not closed"
        assert one.received < BIG_BYTES - MEBIBYTE
    finally:
        one.close()


def test_a_key_that_is_rotated_with_an_overlap_goes_on_and_one_without_ends(fleet, tools, eventually):
    def rotate(overlap_seconds):
        async def work(session):
            new, now = tools.mint(session, "acme"), session.clock.now()
            return await session.perform(
                "keys.rotate",
                lambda changes: keys.rotate_key(
                    changes,
                    key_id=fleet.key_ids["rotated"],
                    successor=new.key,
                    digest=new.digest,
                    now=now,
                    overlap_seconds=overlap_seconds,
                ),
            )

        return fleet.installation.in_session(work)

    issue(fleet, "rotated", "acme")
    with downloads(fleet, tools, ("rotated", FAST)) as (one,):
        rotate(3600.0)
        before = one.received
        eventually(lambda: one.received > before + MEBIBYTE)  # more than the kernels hold
        assert not one.has_ended.is_set()
        fleet.revoke("rotated")
        verify_cut(one, time.monotonic())
    issue(fleet, "rotated", "acme")
    with downloads(fleet, tools, ("rotated", FAST)) as (one,):
        rotate(0.0)
        verify_cut(one, time.monotonic())
    assert ending(fleet, one.record_id) == "revoked"


def test_a_grant_that_is_taken_away_stops_the_next_request_and_not_this_one(fleet, tools, eventually):
    acme, pattern = parse_tenant_id("acme"), [parse_pattern("globex/big/*")]
    fleet.change(
        lambda changes: grants.add_grants(changes, tenant_id=acme, models=pattern, actions=("read",))
    )
    one = Download(fleet, tools, "acme", FAST, model="globex/big/1")
    try:
        fleet.change(lambda changes: grants.remove_grants(changes, tenant_id=acme, models=pattern))
        assert fleet.get("globex/big/1").status == tools.hidden
        before = one.received
        eventually(lambda: one.received > before + MEBIBYTE)
        assert not one.has_ended.is_set()
    finally:
        one.close()


@pytest.mark.slow
def test_while_redis_is_gone_it_waits_and_goes_on_when_redis_is_back(fleet, tools, eventually):
    issue(fleet, "waiting", "acme")
    with downloads(fleet, tools, ("waiting", FAST), ("waiting", SLOW)) as (one, _slow):
        with fleet.server.stopped():
            time.sleep(2.5)  # the lease is over, and what was buffered is read
            before = one.received
            time.sleep(0.7)
            assert one.received == before, "something was handed out while nothing was known"
            assert not one.has_ended.is_set()
            assert fleet.gateway.ops.get("/healthz").status == 200
            assert fleet.wire.get("/v1/whoami", fleet.tokens["waiting"]).status == tools.undecided
        eventually(lambda: one.received > before + MEBIBYTE)
    eventually(fleet.gateway.is_ready)


@pytest.mark.slow
def test_when_redis_stays_away_it_ends_undecided_and_the_worker_goes_on(fleet, tools, eventually):
    issue(fleet, "waiting", "acme")
    wanted = (("waiting", FAST), ("waiting", NOT_AT_ALL))
    with downloads(fleet, tools, *wanted) as running, fleet.server.stopped():
        assert running[0].has_ended.wait(12), "it waits for ever"
        assert {ending(fleet, one.record_id) for one in running} == {"undecided"}
    eventually(fleet.gateway.is_ready)
    assert fleet.get(tools.owned).status == tools.allowed
