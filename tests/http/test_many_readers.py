"""Many readers at once, and difficult readers: slow ones, silent ones, those that leave.

Their cost is bounded, each leaves one outcome in the audit log that says what it may have received, nothing
of them stays in the worker, and other clients are not affected.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits.keys import create_key
from gateway.directory.edits.models import own
from gateway.directory.edits.tenants import create_tenant
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_pattern, parse_tenant_id

MODEL, PACKAGE = "acme/cars/1", "pkgA1"
PATH = f"/v1/models/{MODEL}/-/{PACKAGE}"
SMALL = b"small\n"
PIECES, PIECE = 64, 512 << 10
BLOCK = random.Random(3).randbytes(PIECE - 4)
BIG = b"".join(number.to_bytes(4, "big") + BLOCK for number in range(PIECES))
MANY = 1_000
RECEIVE_BUFFER = 32 << 10
SIP = 8 << 10
IMPATIENT_SECONDS = 1
OF_THE_WORKER = (
    4  # open files that may come meanwhile and belong to no reader: a connection to Redis, a segment
)


class Site:
    """One tenant with a small file and one that takes many steps to send, served by one worker."""

    def __init__(self, installation, token):
        self.installation = installation
        self.token = token
        self.gateway = installation.serve(workers=1)
        [self.worker] = self.gateway.worker_pids()

    def reader(self, span=None):
        return Reader(self.gateway.wire, self.token, span)

    def outcomes(self, readers):
        wanted = {reader.record_id for reader in readers}
        records = self.installation.records()
        return [one for one in records if one["kind"] == "outcome" and one["decision_id"] in wanted]

    def under_way(self):
        return self.gateway.metrics()["cachegate_transfers_under_way"]

    def descriptors(self):
        return len(list(Path(f"/proc/{self.worker}/fd").iterdir()))

    def resident_bytes(self):
        pages = int(Path(f"/proc/{self.worker}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def answers_a_small_read(self):
        return self.gateway.wire.get(f"{PATH}/small.bin", self.token).body == SMALL


class Reader:
    """A client with a small receive buffer, which reads only what it is told to."""

    def __init__(self, wire, token, span):
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.connection.settimeout(30)
        self.connection.connect((wire.host, wire.port))
        lines = [f"GET {PATH}/big.bin HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}"]
        if span is not None:
            lines.append(f"Range: bytes={span[0]}-{span[1] - 1}")
        self.connection.sendall("\r\n".join((*lines, "", "")).encode())
        self.head = b""
        self.body = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def read_head(self):
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.connection.recv(SIP)
            assert received
        self.head, _, body = received.partition(b"\r\n\r\n")
        self.body += body

    def sip(self):
        """Read a little more; return whether there was something."""
        piece = self.connection.recv(SIP)
        self.body += piece
        return bool(piece)

    def leave(self, *, is_rude):
        """Close, or reset."""
        if is_rude:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    @property
    def status(self):
        return int(self.head.split()[1])

    @property
    def record_id(self):
        fields = dict(line.split(b": ", 1) for line in self.head.lower().split(b"\r\n")[1:])
        return fields[b"cachegate-record"].decode()


async def _make_key(session):
    now, acme = session.clock.now(), parse_tenant_id("acme")
    new = issue_key(
        KeyOrder(now=now, kind=KeyKind.TENANT, tenant=acme), environment="test", peppers=session.peppers
    )

    async def work(changes):
        await create_tenant(changes, tenant_id=acme, name="Acme", now=now)
        await own(changes, tenant_id=acme, patterns=[parse_pattern("acme/*")])
        await create_key(changes, key=new.key, digest=new.digest)

    await session.perform("site.furnish", work)
    return new.token


@contextmanager
def served(installation, eventually):
    model = SampleModel(model_id=MODEL, packages={PACKAGE: {"small.bin": SMALL, "big.bin": BIG}})
    write_sample_cache(installation.cache_root, [model])
    site = Site(installation, installation.in_session(_make_key))
    try:
        wire = site.gateway.wire
        eventually(lambda: wire.head(f"{PATH}/big.bin", site.token).header("accept-ranges") == "bytes")
        assert site.answers_a_small_read()
        yield site
    finally:
        site.gateway.stop()
    assert "Traceback" not in site.gateway.log(), site.gateway.log()


@pytest.fixture(scope="module")
def site(new_installation, eventually):
    with served(new_installation("readers"), eventually) as site:
        yield site


@pytest.fixture
def impatient_site(new_installation, eventually):
    """A site that waits a second for a client that takes nothing."""
    seconds = str(IMPATIENT_SECONDS)
    installation = new_installation("impatient", CACHEGATE_STALL_SECONDS=seconds)
    with served(installation, eventually) as site:
        yield site


@pytest.fixture
def many_files():
    """As many open files as we may have: the usual limit is 1024."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < MANY + 200:
        pytest.fail(f"only {most} open files are allowed: raise the hard limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))


def spans():
    return [(number * PIECE, (number + 1) * PIECE) for number in range(PIECES)]


def test_the_pieces_of_64_slow_readers_are_the_file(site, eventually):
    """Let each of 64 readers read a little, one after the other, so that all wait most of the time."""
    with ExitStack() as stack:
        readers = [stack.enter_context(site.reader(span)) for span in spans()]
        for reader in readers:
            reader.read_head()
        assert {reader.status for reader in readers} == {206}
        while hungry := [reader for reader in readers if len(reader.body) < PIECE]:
            for reader in hungry:
                assert reader.sip()
    assert b"".join(reader.body for reader in readers) == BIG
    outcomes = eventually(lambda: len(found := site.outcomes(readers)) == PIECES and found)
    assert {(one["ending"], one["bytes"]) for one in outcomes} == {("complete", PIECE)}


def test_who_stays_gets_every_byte_while_others_leave(site, eventually):
    with ExitStack() as stack:
        readers = [stack.enter_context(site.reader()) for _ in range(24)]
        for reader in readers:
            reader.read_head()
            reader.sip()
        leaving, staying = readers[4:], readers[:4]
        for number, reader in enumerate(leaving):
            reader.leave(is_rude=number % 2 == 0)
        while hungry := [reader for reader in staying if len(reader.body) < len(BIG)]:
            for reader in hungry:
                assert reader.sip()
    assert all(reader.body == BIG for reader in staying)
    gone = eventually(lambda: len(found := site.outcomes(leaving)) == len(leaving) and found)
    had = {reader.record_id: len(reader.body) for reader in leaving}
    for one in gone:
        assert one["ending"] == "client-gone"
        assert had[one["decision_id"]] <= one["bytes"] < len(BIG)
    stayed = eventually(lambda: len(found := site.outcomes(staying)) == len(staying) and found)
    assert {(one["ending"], one["bytes"]) for one in stayed} == {("complete", len(BIG))}


def test_readers_that_fall_silent_are_let_go_and_others_are_not(impatient_site, eventually):
    """As when a machine loses its power: it reads no more, and no packet says so."""
    site = impatient_site
    before = site.descriptors()
    with ExitStack() as stack:
        silent = [stack.enter_context(site.reader()) for _ in range(16)]
        slow = stack.enter_context(site.reader())
        for reader in (*silent, slow):
            reader.read_head()

        def only_one_is_left():
            if len(slow.body) < len(BIG) // 2:
                assert slow.sip()
            return site.under_way() == 1

        eventually(only_one_is_left)
        gone = eventually(lambda: len(found := site.outcomes(silent)) == len(silent) and found)
        assert {one["ending"] for one in gone} == {"client-gone"}
        assert all(0 < one["bytes"] < len(BIG) for one in gone)
        while len(slow.body) < len(BIG):
            assert slow.sip()
    assert slow.body == BIG
    eventually(lambda: site.descriptors() <= before + OF_THE_WORKER)


@pytest.mark.slow
def test_a_thousand_slow_downloads_at_once_leave_memory_and_descriptors_as_they_were(
    site, many_files, eventually
):
    """What the first thousand make the allocator take, it keeps; the next thousand take no more."""

    def hold_many():
        with ExitStack() as stack:
            readers = [stack.enter_context(site.reader()) for _ in range(MANY)]
            for reader in readers:
                reader.read_head()
            assert site.under_way() == MANY
            held = site.resident_bytes()
            for reader in readers:
                reader.sip()
            assert site.answers_a_small_read()
            held = max(held, site.resident_bytes())
        eventually(lambda: site.under_way() == 0)
        outcomes = eventually(lambda: len(found := site.outcomes(readers)) >= MANY and found)
        assert len(outcomes) == len({one["decision_id"] for one in outcomes}) == MANY
        assert {one["ending"] for one in outcomes} == {"client-gone"}
        return held

    before = site.descriptors()
    hold_many()
    warm = site.resident_bytes()
    for _ in range(2):
        assert 0.9 < hold_many() / warm < 1.1
    eventually(lambda: site.descriptors() <= before + OF_THE_WORKER)
    assert 0.9 < site.resident_bytes() / warm < 1.1
