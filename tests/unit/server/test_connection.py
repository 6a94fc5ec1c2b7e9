"""What the kernel tells about a real connection: whether the client is there, and how much is unsent."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager

import pytest
import uvloop

from gateway.server.connection import Connection
from gateway.server.flow import Flow

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
BACKLOG_BYTES = 32 << 20


class Ours(asyncio.Protocol):
    def __init__(self):
        self.made = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        transport.pause_reading()  # as while a pipelined request waits behind an answer
        self.made.set_result(Connection(transport, Flow(transport, ())))
        self.transport = transport


@asynccontextmanager
async def connected(family=socket.AF_INET):
    ours = Ours()
    loop = asyncio.get_running_loop()
    if family == socket.AF_UNIX:
        here, there = socket.socketpair()
        await loop.connect_accepted_socket(lambda: ours, here)
    else:
        server = await loop.create_server(lambda: ours, "127.0.0.1", 0)
        there = socket.create_connection(server.sockets[0].getsockname())
        await ours.made
        server.close()
    with there:
        try:
            yield await ours.made, ours.transport, there
        finally:
            ours.transport.abort()
            await asyncio.sleep(0.01)


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def run(factory, scenario):
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


@LOOPS
def test_a_reset_is_known_before_the_loop_comes_to_it(factory):
    async def scenario():
        async with connected() as (connection, _, client):
            assert not connection.has_gone()
            reset(client)
            assert connection.has_gone()

    run(factory, scenario)


@LOOPS
def test_a_client_that_only_ended_its_own_sending_is_still_there(factory):
    async def scenario():
        async with connected() as (connection, _, client):
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)
            assert not connection.has_gone()

    run(factory, scenario)


@LOOPS
def test_what_a_client_has_not_taken_in_is_counted_down_to_nothing(factory):
    async def scenario():
        async with connected() as (connection, transport, client):
            assert connection.unsent_bytes() == 0
            transport.write(bytes(BACKLOG_BYTES))
            await asyncio.sleep(0.05)
            stuck = connection.unsent_bytes()
            await asyncio.sleep(0.05)
            assert 0 < connection.unsent_bytes() == stuck < BACKLOG_BYTES
            client.setblocking(False)
            taken = 0
            while taken < BACKLOG_BYTES:
                taken += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
            async with asyncio.timeout(10):
                while connection.unsent_bytes():  # noqa: ASYNC110 -- an acknowledgement has no event
                    await asyncio.sleep(0.001)

    run(factory, scenario)


@LOOPS
def test_a_closed_connection_and_a_unix_socket_are_no_error(factory):
    async def scenario():
        async with connected(socket.AF_UNIX) as (connection, _, _):
            assert not connection.has_gone()
            assert connection.unsent_bytes() == 0
            assert connection.acknowledged_bytes() == 0
            connection.abort()
            await asyncio.sleep(0.01)
            assert connection.unsent_bytes() == 0
            assert connection.has_gone()  # with bytes unsent

    run(factory, scenario)
