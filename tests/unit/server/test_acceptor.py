"""Connections beyond the limits of the acceptor: they wait or are reset, and the counts stay right."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
import struct
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from gateway.credential.client import parse_trusted_networks
from gateway.server import acceptor as module
from gateway.server.acceptor import LEAST_CONNECTIONS, Acceptor, Bounds, ConnectionCounts, room
from gateway.server.kernel_queue import MAX_UNSENT_BYTES
from tests.certificates import write_certificate

HELLO = b"hello"


class Protocol(asyncio.Protocol):
    """A protocol that sends hello, and notes when the connection is lost."""

    def __init__(self):
        self.is_made = False
        self.on_lost = None

    def connection_made(self, transport):
        self.is_made = True
        self.transport = transport
        transport.write(HELLO)

    def connection_lost(self, exc):
        self.on_lost()


class Accepting:
    def __init__(self, listener, acceptor, counts, made):
        self.address = listener.getsockname()
        self.listener, self.acceptor, self.counts, self.made = listener, acceptor, counts, made

    async def connect(self):
        client = socket.socket()
        client.setblocking(False)
        with suppress(ConnectionResetError):  # `received` reports it
            await asyncio.get_running_loop().sock_connect(client, self.address)
        return client


@asynccontextmanager
async def accepting(*, tls=None, **bounds):
    counts, made = ConnectionCounts(), []

    def make():
        made.append(Protocol())
        return made[-1]

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    acceptor = Acceptor(listener, make, bounds=Bounds(**bounds), counts=counts, tls=tls)
    acceptor.start()
    try:
        yield Accepting(listener, acceptor, counts, made)
    finally:
        acceptor.close()
        await acceptor.wait_closed()
        listener.close()
        for one in made:
            if one.is_made:
                one.transport.abort()
        async with asyncio.timeout(20):
            await until(lambda: not counts.open)
        assert not acceptor._of_source  # no source without connections is kept


def run(scenario):
    async def bounded():
        async with asyncio.timeout(60):
            with ExitStack() as clients:
                await scenario(clients)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def received(client):
    """The first bytes that came; empty where the connection ended or was reset before."""
    try:
        return await asyncio.get_running_loop().sock_recv(client, 100)
    except OSError:
        return b""


async def until(holds):
    while not holds():  # noqa: ASYNC110 -- what it counts has no event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("wanted", "max_files", "expected"),
    [
        (4096, 1 << 62, 4096),
        (4096, 1_048_576, 4096),
        (4096, 1024, (1024 - 128) // 3),
        (100, 1024, 100),
        (4096, 64, LEAST_CONNECTIONS),
        (4096, 0, LEAST_CONNECTIONS),
    ],
)
def test_there_is_room_for_what_was_asked_for_or_for_a_third_of_the_files(wanted, max_files, expected):
    assert room(wanted, max_files) == expected


def test_who_comes_when_it_is_full_waits_until_another_one_has_left():
    async def scenario(clients):
        async with accepting(connections=4, without_share=parse_trusted_networks(["127.0.0.1"])) as served:
            first = [clients.enter_context(await served.connect()) for _ in range(4)]
            assert [await received(one) for one in first] == [HELLO] * 4
            waiting = [clients.enter_context(await served.connect()) for _ in range(3)]
            await asyncio.sleep(0.05)  # nothing may come, however long one waits
            assert (served.counts.open, len(served.made), served.counts.refused) == (4, 4, 0)
            for one in first[:3]:
                one.close()
            assert [await received(one) for one in waiting] == [HELLO] * 3
            assert served.counts.open == 4

    run(scenario)


def test_while_it_is_full_the_loop_has_nothing_to_do(monkeypatch):
    asked = []
    accept = Acceptor._accept
    monkeypatch.setattr(Acceptor, "_accept", lambda self: asked.append(1) or accept(self))

    async def scenario(clients):
        async with accepting(connections=2, without_share=parse_trusted_networks(["127.0.0.1"])) as served:
            for _ in range(10):
                clients.enter_context(await served.connect())
            await until(lambda: served.counts.open == 2)
            for _ in range(20):
                await asyncio.sleep(0)
            before = len(asked)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert len(asked) == before

    run(scenario)


def test_one_source_gets_no_more_than_its_share_and_others_get_the_rest():
    async def scenario(clients):
        async with accepting(connections=4) as served:
            answers = [await received(clients.enter_context(await served.connect())) for _ in range(5)]
            assert answers == [HELLO, HELLO, b"", b"", b""]
            assert served.counts.refused == 3
            other = clients.enter_context(socket.socket())
            other.bind(("127.0.0.2", 0))
            other.setblocking(False)
            await asyncio.get_running_loop().sock_connect(other, served.address)
            assert await received(other) == HELLO
            assert served.counts.open == 3

    run(scenario)


def test_a_share_is_given_back_with_each_connection():
    async def scenario(clients):
        async with accepting(connections=2) as served:
            for _ in range(10):
                client = clients.enter_context(await served.connect())
                assert await received(client) == HELLO
                client.close()
                await until(lambda: served.counts.open == 0)
            assert served.counts.refused == 0

    run(scenario)


def test_trusted_proxies_are_many_clients():
    async def scenario(clients):
        trusted = parse_trusted_networks(["127.0.0.0/8"])
        async with accepting(connections=4, without_share=trusted) as served:
            answers = [await received(clients.enter_context(await served.connect())) for _ in range(4)]
            assert answers == [HELLO] * 4
            assert served.counts.refused == 0

    run(scenario)


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 1, 0, 0), str(0x20010DB800000000)),
        (("2001:db8::ffff:2", 1, 0, 0), str(0x20010DB800000000)),
        (("2001:db8:0:1::1", 1, 0, 0), str(0x20010DB800000001)),
        (("10.1.2.3", 1), None),
        (("::ffff:10.1.2.3", 1, 0, 0), None),
        (("fd00::5", 1, 0, 0), None),
        ("", None),
        (b"", None),
    ],
)
def test_a_source_is_an_address_or_what_one_host_can_roam_in(address, source):
    async def scenario(_clients):
        async with accepting(without_share=parse_trusted_networks(["10.0.0.0/8", "fd00::/8"])) as served:
            assert served.acceptor._source_of(address) == source

    run(scenario)


def test_a_process_without_files_pauses_and_serves_again(monkeypatch):
    """Reach the real descriptor limit of this process by opening files."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.05)
    pauses = []
    pause = Acceptor._pause
    monkeypatch.setattr(Acceptor, "_pause", lambda self: pauses.append(1) or pause(self))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario(clients):
        async with accepting() as served:
            waiting = [clients.enter_context(await served.connect()) for _ in range(2)]
            assert [await received(one) for one in waiting] == [HELLO] * 2
            late = clients.enter_context(socket.socket())
            late.setblocking(False)
            taken = []
            held = open_files()
            resource.setrlimit(resource.RLIMIT_NOFILE, (held + 20, hard))
            try:
                with suppress(OSError):
                    while True:
                        taken.append(os.open("/dev/null", os.O_RDONLY))
                await asyncio.get_running_loop().sock_connect(late, served.address)
                pauses.clear()
                await until(lambda: len(pauses) > 2)  # it tried again, and paused again
                assert served.counts.open == 2
            finally:
                for one in taken:
                    os.close(one)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert await received(late) == HELLO

    run(scenario)


def test_what_the_system_says_otherwise_is_not_swallowed():
    class Broken:
        def accept(self):
            raise OSError(errno.EBADF, "bad file")

    async def scenario(_clients):
        async with accepting() as served:
            listener, served.acceptor._listener = served.acceptor._listener, Broken()
            try:
                with pytest.raises(OSError, match="bad file"):
                    served.acceptor._accept()
            finally:
                served.acceptor._listener = listener

    run(scenario)


def test_the_kernel_is_told_to_keep_little_for_each_connection():
    async def scenario(clients):
        async with accepting(stall_seconds=7.0) as served:
            await received(clients.enter_context(await served.connect()))
            accepted = served.made[0].transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == MAX_UNSENT_BYTES
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 14_000

    run(scenario)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem"


@pytest.fixture
def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


def test_a_handshake_that_is_never_finished_is_counted_and_given_up(tls):
    async def scenario(clients):
        async with accepting(tls=tls, handshake_seconds=0.3) as served:
            silent = [clients.enter_context(await served.connect()) for _ in range(3)]
            await until(lambda: served.counts.open == 3)
            assert not any(one.is_made for one in served.made)
            assert [await received(one) for one in silent] == [b""] * 3
            await until(lambda: served.counts.open == 0)

    run(scenario)


CLIENT_HELLO_OF_NOBODY = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03junk"


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", CLIENT_HELLO_OF_NOBODY])
def test_a_handshake_that_is_none_gives_its_place_back(junk, tls, caplog):
    async def scenario(clients):
        async with accepting(tls=tls, handshake_seconds=0.3) as served:
            client = clients.enter_context(await served.connect())
            await asyncio.get_running_loop().sock_sendall(client, junk)
            while await received(client):
                pass
            await until(lambda: served.counts.open == 0)

    run(scenario)
    assert caplog.records == []


def test_a_client_that_leaves_within_its_handshake_gives_its_place_back(tls, caplog):
    async def scenario(clients):
        async with accepting(tls=tls) as served:
            for is_reset in (False, True):
                client = clients.enter_context(await served.connect())
                await until(lambda: served.counts.open == 1)
                if is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                await until(lambda: served.counts.open == 0)

    run(scenario)
    assert caplog.records == []


def test_a_server_that_stops_gives_up_handshakes(tls):
    async def scenario(clients):
        async with accepting(tls=tls, handshake_seconds=40) as served:
            client = clients.enter_context(await served.connect())
            await until(lambda: served.counts.open == 1)
            served.acceptor.close()
            ended = asyncio.ensure_future(received(client))
            assert await asyncio.wait_for(ended, 20) == b""
            await served.acceptor.wait_closed()
            assert served.counts.open == 0

    run(scenario)


def test_connections_that_come_while_a_server_stops_are_given_up():
    async def scenario(clients):
        async with accepting() as server:
            server.acceptor._pause()
            for _ in range(3):
                clients.enter_context(await server.connect())
            server.acceptor._accept()
            await asyncio.sleep(0)  # their tasks begin: the protocols are made within the next iteration
            server.acceptor.close()
            await server.acceptor.wait_closed()
            async with asyncio.timeout(20):
                await until(lambda: not server.counts.open)

    run(scenario)


def test_a_client_that_does_not_end_tls_is_not_waited_for_long(tls, certificate):
    async def scenario(clients):
        async with accepting(tls=tls, shutdown_seconds=0.3) as served:
            trusted = ssl.create_default_context(cafile=certificate)
            raw = socket.create_connection(served.address)
            client = clients.enter_context(
                await asyncio.to_thread(trusted.wrap_socket, raw, server_hostname="localhost")
            )
            assert await asyncio.to_thread(client.recv, 100) == HELLO
            served.made[0].transport.close()  # the client does not answer to that
            async with asyncio.timeout(20):  # asyncio's default is 30 s
                await until(lambda: served.counts.open == 0)

    run(scenario)
