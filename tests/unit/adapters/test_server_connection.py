"""One connection and its server, over real sockets. What the client makes of it is in its own tests."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.answer_reader import MAX_HEAD_BYTES
from gateway.adapters.server_connection import MAX_HELD_BYTES, BrokenConnectionError, ServerConnection

pytestmark = pytest.mark.anyio

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
LONG = 30.0  # of a time-out that the test does not wait for
READ_BYTES = 256 * 1024  # of an event loop at one time


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Ended:
    """Takes note of the end of a connection."""

    def __init__(self):
        self.connections = []
        self.came = asyncio.Event()

    def __call__(self, connection):
        self.connections.append(connection)
        self.came.set()


@asynccontextmanager
async def connected():
    """A connection, the server's end of it as a plain socket, and what notes its end."""
    loop, ended = asyncio.get_running_loop(), Ended()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        _, connection = await loop.create_connection(lambda: ServerConnection(ended), *listener.getsockname())
        peer, _ = await loop.sock_accept(listener)
        with peer:
            peer.setblocking(False)
            yield connection, peer, ended
            connection.abort()
            await asyncio.sleep(0)


async def answer_of(connection):
    while (reader := connection.find_answer()) is None:
        await connection.news_until(None)
    return reader


async def asked(connection, peer, answer):
    """A whole request, and the answer's beginning."""
    connection.begin()
    connection.write(REQUEST)
    await connection.sent(LONG)
    connection.note_request_is_whole()
    await asyncio.get_running_loop().sock_sendall(peer, answer)
    return await answer_of(connection)


async def test_an_exchange_leaves_a_connection_for_the_next_one():
    async with connected() as (connection, peer, ended):
        for _ in range(3):
            await asked(connection, peer, OK)
            assert await connection.piece(LONG) == b"{}"
            assert connection.has_all
            assert await connection.piece(LONG) is None
            assert connection.finish()
            assert connection.is_quiet()
        assert not ended.connections


async def test_an_answer_that_was_not_taken_ends_the_connection():
    async with connected() as (connection, peer, ended):
        await asked(connection, peer, OK)
        assert not connection.finish()
        assert ended.connections == [connection]


async def test_an_answer_to_a_request_that_was_not_sent_whole_ends_the_connection():
    async with connected() as (connection, peer, ended):
        connection.begin()
        connection.write(REQUEST)
        await asyncio.get_running_loop().sock_sendall(peer, OK)
        await answer_of(connection)
        assert await connection.piece(LONG) == b"{}"
        assert not connection.finish()
        assert ended.connections == [connection]


async def test_bytes_that_nobody_asked_for_end_an_idle_connection():
    async with connected() as (connection, peer, ended):
        await asyncio.get_running_loop().sock_sendall(peer, OK)
        await ended.came.wait()
        assert not connection.is_quiet()


async def test_bytes_in_the_kernel_are_seen_before_the_event_loop_sees_them():
    async with connected() as (connection, peer, _):
        assert connection.is_quiet()
        peer.setblocking(True)
        peer.sendall(OK)
        assert not connection.is_quiet()


async def test_a_close_is_seen_before_the_event_loop_sees_it():
    async with connected() as (connection, peer, _):
        peer.close()
        assert not connection.is_quiet()


async def test_the_end_is_told_once():
    async with connected() as (connection, peer, ended):
        connection.abort()
        connection.abort()
        peer.close()
        await asyncio.sleep(0)
        assert ended.connections == [connection]
        with pytest.raises(BrokenConnectionError):
            connection.write(b"x")
        with pytest.raises(BrokenConnectionError):
            connection.find_answer()


async def test_an_answer_that_is_whole_survives_the_close_behind_it():
    async with connected() as (connection, peer, ended):
        await asked(connection, peer, OK)
        peer.close()
        await ended.came.wait()
        assert await connection.piece(LONG) == b"{}"
        assert not connection.finish()


async def test_a_body_that_ends_early_is_broken_after_what_has_come():
    async with connected() as (connection, peer, ended):
        await asked(connection, peer, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        peer.close()
        await ended.came.wait()
        assert await connection.piece(LONG) == b"abc"
        with pytest.raises(BrokenConnectionError):
            await connection.piece(LONG)


async def test_no_more_is_read_than_is_taken():
    total = 64 << 20
    async with connected() as (connection, peer, _):
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total
        reader = await asked(connection, peer, head)
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, bytes(total)))
        while not connection._is_paused:
            await connection.news_until(None)
        for _ in range(100):  # turns of the loop, in which more would be read
            await asyncio.sleep(0)
        assert reader.held_bytes <= MAX_HELD_BYTES + READ_BYTES
        assert not sending.done()
        came = 0
        while (piece := await connection.piece(LONG)) is not None:
            came += len(piece)
            assert reader.held_bytes <= MAX_HELD_BYTES + READ_BYTES
        assert came == total
        await sending
        assert connection.finish()


async def test_what_the_server_does_not_take_is_waited_for():
    loop = asyncio.get_running_loop()
    async with connected() as (connection, peer, _):
        connection.begin()
        count = 0
        while connection.write(bytes(MAX_HEAD_BYTES)):
            count += 1
            await connection.sent(LONG)
        with pytest.raises(TimeoutError):
            await connection.sent(0.01)
        sent = asyncio.create_task(connection.sent(LONG))
        left = (count + 1) * MAX_HEAD_BYTES
        while left:
            left -= len(await loop.sock_recv(peer, left))
        await sent


async def test_whoever_waits_learns_of_the_end():
    async with connected() as (connection, *_):
        connection.begin()
        while connection.write(bytes(MAX_HEAD_BYTES)):
            await connection.sent(LONG)
        sent = asyncio.create_task(connection.sent(LONG))
        answer = asyncio.create_task(answer_of(connection))
        await asyncio.sleep(0)
        connection.abort()
        for waiting in (sent, answer):
            with pytest.raises(BrokenConnectionError):
                await waiting
