"""Pool connections follow the place, with real servers of which one replaces the other."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import unquote, urlsplit

import pytest

from gateway.adapters.redis_store import RedisStore
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio


async def plan(_snapshot, batch):
    batch.facts[b"{cachegate}:f:a"] = b"1"


@contextlib.asynccontextmanager
async def address(target):
    """A port that forwards to a unix socket; changing `target` affects new connections only."""
    links = set()

    async def serve(reader, writer):
        links.add(asyncio.current_task())
        back_reader, back_writer = await asyncio.open_unix_connection(target["socket"])
        target["made"] += 1

        async def pump(source, sink):
            with contextlib.suppress(OSError), contextlib.closing(sink.transport):
                while data := await source.read(65536):
                    sink.write(data)

        await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for link in links:
        link.cancel()
    await asyncio.gather(*links, return_exceptions=True)


async def test_a_connection_from_before_a_move_is_not_used_after_it(valkey_url):
    target = {"socket": unquote(urlsplit(valkey_url).path), "made": 0}
    async with address(target) as port:
        store = RedisStore(f"redis://127.0.0.1:{port}")
        await asyncio.gather(*(store.generation() for _ in range(5)))
        made = target["made"]
        await store.generation()
        assert target["made"] == made
        store.move()
        await store.generation()
        assert target["made"] == made + 1
        # Idle connections reconnect when they are needed, once each.
        await asyncio.gather(*(store.generation() for _ in range(5)))
        await asyncio.gather(*(store.generation() for _ in range(5)))
        assert target["made"] <= made + 5
        await store.close()


async def test_a_transaction_that_is_under_way_is_not_disturbed_by_a_move(valkey_url):
    store = RedisStore(valkey_url)

    async def moving(snapshot, batch):
        store.move()
        await plan(snapshot, batch)

    assert (await store.transact(moving))[1].generation == 1
    await store.close()


async def test_what_the_sentinels_say_is_not_hidden_by_the_client_library():
    store = RedisStore("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main")
    for call in (store.generation(), store.transact(plan)):
        with pytest.raises(Unavailable, match=r"no sentinel answers: 127\.0\.0\.1:1, 127\.0\.0\.1:2"):
            await call
    await store.close()
