"""Clients that take nothing, against a real instance: each is cut, whatever was sent to it by which code."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.server.kernel_queue import MAX_UNSENT_BYTES
from tests.certificates import write_certificate

STALL_SECONDS = 1
LONG_REQUEST = b"GET /a HTTP/1.1\r\nhost: x\r\npadding: %b\r\n\r\n" % (b"a" * 3000)  # its answer is as long
BURST = 20
ONE_SEGMENT = 1 << 17  # the kernel checks its limit before each segment that it takes
STALLED = "cachegate_connections_stalled_total"


@pytest.fixture(scope="module")
def stalling(serving):
    with serving(stall_seconds=STALL_SECONDS) as running:
        yield running


class SmallClient:
    """A client with a small receive buffer, and the size of what the server's kernel holds for it."""

    def __init__(self, instance):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(instance.public)
        ends = self.socket.getpeername(), self.socket.getsockname()
        self._ends = tuple(f":{port:04X}" for _, port in ends)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def queued(self):
        """None once the server has closed the connection."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            if (local[-5:], remote[-5:]) == self._ends:
                return int(queues.split(":")[0], 16)
        return None

    def read_to_the_end(self):
        while self.socket.recv(1 << 16):
            pass

    def ask(self, count):
        """Fewer than may be pipelined; in the end more bytes of answers than all buffers together hold."""
        self.socket.sendall(LONG_REQUEST * count)

    def ask_until_cut(self):
        """Request for ever and read nothing. Returns the most that the server's kernel held meanwhile."""
        most = 0
        with suppress(ConnectionError, ssl.SSLError):
            while True:
                self.ask(BURST)
                most = max(most, self.queued() or 0)
        return most


def test_one_that_asks_and_never_reads_is_cut_and_costs_little_until_then(stalling):
    with SmallClient(stalling) as client:
        most = client.ask_until_cut()
    assert 0 < most <= MAX_UNSENT_BYTES + ONE_SEGMENT
    assert stalling.await_status(lambda status: status["counters"][STALLED])


def test_the_instance_counts_them(serving):
    with serving(stall_seconds=STALL_SECONDS, workers=2) as running:
        for _ in range(3):
            with SmallClient(running) as client:
                client.ask_until_cut()
        assert running.await_status(lambda status: status["counters"][STALLED] == 3)


@pytest.mark.parametrize(
    "end",
    [
        lambda client: None,
        lambda client: client.shutdown(socket.SHUT_WR),
        lambda client: client.sendall(b"garbage\r\n\r\n"),
        lambda client: client.sendall(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    ],
    ids=["silence", "half-closed", "an early refusal", "the last answer"],
)
def test_what_is_still_to_be_flushed_to_one_that_does_not_read_is_dropped(end, stalling, eventually):
    with SmallClient(stalling) as client:
        client.ask(5 * BURST)
        end(client.socket)
        eventually(lambda: client.queued() is None, seconds=60)
        with pytest.raises(ConnectionResetError):  # a reset, not a normal end
            client.read_to_the_end()


def test_one_that_takes_a_few_bytes_at_a_time_is_cut(stalling, eventually):
    """Fewer than 240 bytes in a second: without a minimum it could hold a connection for ever."""
    with SmallClient(stalling) as client:
        client.ask(5 * BURST)

        def is_cut_after_another_byte():
            client.socket.recv(1)
            return client.queued() is None

        eventually(is_cut_after_another_byte, seconds=60)


def test_one_that_reads_all_of_it_slowly_is_not_cut(serving):
    count, stall_seconds = 5 * BURST, 3
    with serving(stall_seconds=stall_seconds) as running, SmallClient(running) as client:
        client.ask(count)
        received, slow_until = bytearray(), time.monotonic() + stall_seconds + 1
        while received.count(b"HTTP/1.1 200 ") < count or not received.endswith(b"}"):
            received += client.socket.recv(1 << 10)
            if time.monotonic() < slow_until:
                time.sleep(0.03)  # it is the client's pace that is tried: 30 kB in a second


def test_over_tls_as_well(serving, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    trusted = ssl.create_default_context(cafile=certificate)
    tls = [str(certificate), str(key)]
    with serving(stall_seconds=STALL_SECONDS, tls=tls) as running, SmallClient(running) as client:
        client.socket = trusted.wrap_socket(client.socket, server_hostname="localhost")
        client.ask_until_cut()
        assert running.await_status(lambda status: status["counters"][STALLED] == 1)
