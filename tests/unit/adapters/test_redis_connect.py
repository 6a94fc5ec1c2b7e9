"""Finding the primary for the feed's raw connection. A Sentinel is a socket that speaks its protocol."""

from __future__ import annotations

import asyncio
import contextlib

import hiredis
import pytest

from gateway.adapters.redis_connect import connect_raw
from gateway.adapters.redis_url import RedisLimits, make_place, parse_redis_url
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

LIMITS = RedisLimits(connect_seconds=1.0, operation_seconds=1.0)


class RecordingProtocol(asyncio.Protocol):
    """Sends PING as soon as it is connected, and records what it receives."""

    def __init__(self):
        self.heard = asyncio.get_running_loop().create_future()
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"PING\r\n")

    def data_received(self, data):
        if not self.heard.done():
            self.heard.set_result(data)

    def connection_lost(self, error):
        self.closed.set_result(None)

    async def ping(self):
        async with asyncio.timeout(2):
            answer = await self.heard
        self.transport.abort()
        await self.closed
        return answer


@contextlib.asynccontextmanager
async def start_server(answer):
    """A server that answers each command with what `answer` returns for its words."""
    served = []

    async def serve(reader, writer):
        served.append(asyncio.current_task())
        parser = hiredis.Reader()
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                parser.feed(data if data.startswith(b"*") else b"*1\r\n$4\r\nPING\r\n")
                while (command := parser.gets()) is not False:
                    writer.write(answer([word.decode().upper() for word in command]))
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*served)


def pong(words):
    return b"+PONG\r\n" if words == ["PING"] else b"+OK\r\n"


async def connect(url):
    protocol = RecordingProtocol()
    address = parse_redis_url(url)
    await connect_raw(address, LIMITS, protocol, make_place(address, LIMITS))
    return protocol


async def test_a_unix_socket_is_connected_to(valkey_url):
    assert await (await connect(valkey_url)).ping() == b"+PONG\r\n"


async def test_a_port_is_connected_to():
    async with start_server(pong) as port:
        assert await (await connect(f"redis://127.0.0.1:{port}")).ping() == b"+PONG\r\n"


async def test_the_primary_is_asked_of_a_sentinel_at_each_connection():
    asked = []
    async with start_server(pong) as port:

        def answer(words):
            if words == ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "MYMASTER"]:
                asked.append(words)
                return f"*2\r\n$9\r\n127.0.0.1\r\n${len(str(port))}\r\n{port}\r\n".encode()
            return b"+OK\r\n"

        async with start_server(answer) as sentinel:
            for _ in range(2):
                protocol = await connect(f"redis+sentinel://127.0.0.1:{sentinel}/mymaster")
                assert await protocol.ping() == b"+PONG\r\n"
    assert len(asked) == 2


async def test_no_sentinel_in_reach_is_a_server_that_is_not_there():
    with pytest.raises(Unavailable) as unavailable:
        await connect("redis+sentinel://:hunter2@127.0.0.1:1/mymaster")
    assert "hunter2" not in str(unavailable.value)


async def test_no_cluster_node_in_reach_is_a_server_that_is_not_there():
    with pytest.raises(Unavailable) as unavailable:
        await connect("redis+cluster://:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(unavailable.value)


async def test_a_port_that_nobody_listens_on_is_an_error_of_the_system():
    with pytest.raises(OSError, match=r"."):
        await connect("redis://127.0.0.1:1")
