"""The canary on a real server: which worker runs it, what it measures, and which takes over."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_store import RedisStore
from gateway.assembly.canary import CANARY, LOCK, Canary
from gateway.directory.records.names import FACTS
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 0.3


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def valkey_url(tmp_path_factory):
    with EmbeddedValkey(tmp_path_factory.mktemp("state")).running() as url:
        yield url


@pytest.fixture
async def store(valkey_url):
    store = RedisStore(valkey_url)
    await store._client.execute_command("FLUSHALL")
    yield store
    await store.close()


class Singing:
    """A canary that runs for as long as the context lasts."""

    def __init__(self, store, worker="w"):
        self.lags, self.failures = [], []
        self.canary = Canary(
            store=store,
            worker=worker,
            seconds=0.05,
            lease_seconds=LEASE_SECONDS,
            clock=SystemClock(),
            on_lag=self.lags.append,
            on_failure=self.failures.append,
        )

    async def __aenter__(self):
        self.task = asyncio.create_task(self.canary.measure())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task

    async def until(self, holds):
        while not holds(self):  # noqa: ASYNC110 -- lists have no events
            await asyncio.sleep(0.005)


async def test_it_changes_a_fact_that_is_followed_and_measures_the_wait(store):
    async with Singing(store) as singing:
        await singing.until(lambda one: len(one.lags) >= 2)
    assert all(lag > 0 for lag in singing.lags)
    assert await store.generation() >= 2
    assert CANARY.startswith(FACTS)
    _, [value] = await store.read([CANARY])
    assert value == b"w"


async def test_a_worker_that_does_not_acknowledge_shows_in_the_lag(store):
    await store.put_hash(b"{cachegate}:workers", {b"stopped": b"0:1"})
    async with Singing(store) as singing:
        await singing.until(lambda one: one.lags)
    assert singing.lags[0] >= LEASE_SECONDS


async def test_one_worker_of_the_fleet_sings_and_the_others_say_nought(store):
    async with Singing(store, "a") as first:
        await first.until(lambda one: one.lags)
        async with Singing(store, "b") as second:
            await second.until(lambda one: len(one.lags) >= 3)
            assert set(second.lags) == {0.0}


async def test_when_it_ends_another_takes_over(store):
    async with Singing(store, "a") as first:
        await first.until(lambda one: one.lags)
    async with Singing(store, "b") as second:
        await second.until(lambda one: one.lags)
        assert second.lags[-1] == 0.0
        # The lock expires by itself; here it is made to expire sooner.
        await store._client.execute_command("PEXPIRE", LOCK, 1)
        await second.until(lambda one: one.lags[-1] > 0.0)


async def test_a_server_that_is_gone_is_a_failure_and_no_measurement(store):
    lost = RedisStore("redis://127.0.0.1:1")
    async with Singing(lost) as singing:
        await singing.until(lambda one: len(one.failures) >= 2)
    assert all(isinstance(one, Unavailable) for one in singing.failures)
    assert singing.lags == []
    await lost.close()
