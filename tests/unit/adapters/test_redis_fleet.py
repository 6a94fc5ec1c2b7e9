from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
import redis.asyncio as redis

from gateway.adapters.redis_fleet import RENEW, WORKERS, Registered
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_transaction import GENERATION

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(valkey_url):
    store = RedisStore(valkey_url)
    yield store
    await store.close()


@pytest.fixture
async def raw(valkey_url):
    client = redis.Redis(unix_socket_path=unquote(urlsplit(valkey_url).path))
    yield client
    await client.aclose()


async def renew(raw, worker, applied):
    return await raw.eval(RENEW, 2, GENERATION, WORKERS, worker, applied)


async def test_nobody_is_registered_on_an_empty_server(store):
    fleet = await store.fleet()
    assert fleet.workers == ()
    assert fleet.now > 1.7e9


async def test_a_renewal_registers_and_answers_with_generation_and_history(store, raw):
    assert await renew(raw, "w", 0) == [None, None]
    await raw.hset(GENERATION, mapping={"counter": 7, "history": "ab"})
    assert await renew(raw, "w", 6) == [b"7", b"ab"]
    fleet = await store.fleet()
    [worker] = fleet.workers
    assert (worker.worker, worker.applied) == ("w", 6)
    assert 0 <= fleet.now - worker.renewed_at < 1.0


async def test_each_worker_has_an_entry_of_its_own_and_the_latest_counts(store, raw):
    for worker, applied in (("a", 1), ("b", 2), ("a", 3)):
        await renew(raw, worker, applied)
    assert {one.worker: one.applied for one in (await store.fleet()).workers} == {"a": 3, "b": 2}


async def test_an_entry_that_says_nothing_gives_nobody_a_say(store, raw):
    await renew(raw, "good", 1)
    for name, value in (("x", "1"), ("y", "one:2"), ("z", "1:"), ("n", "-1:5"), ("", ":"), ("u", b"\xff:1")):
        await raw.hset(WORKERS, name, value)
    assert [one.worker for one in (await store.fleet()).workers] == ["good"]


async def test_times_are_seconds_with_their_milliseconds(store, raw):
    await raw.hset(WORKERS, "w", "5:1700000000250")
    assert (await store.fleet()).workers == (Registered(worker="w", applied=5, renewed_at=1700000000.25),)


async def test_workers_are_taken_off_by_name(store, raw):
    for worker in ("a", "b", "c"):
        await renew(raw, worker, 1)
    await store.drop_workers(["a", "c", "never there"])
    await store.drop_workers([])
    assert [one.worker for one in (await store.fleet()).workers] == ["b"]


async def test_a_lock_has_one_holder_until_it_ends_by_itself(store, raw):
    lock = b"{cachegate}:lock"
    assert await store.hold(lock, "a", seconds=10)
    assert not await store.hold(lock, "b", seconds=10)
    assert await store.hold(lock, "a", seconds=10)
    await raw.pexpire(lock, 1)
    while await raw.exists(lock):
        pass
    assert await store.hold(lock, "b", seconds=10)
    assert 9_000 < await raw.pttl(lock) <= 10_000
