"""The canary on a real server: which worker runs it, what it measures, and which takes over."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_store import RedisStore
from gateway.assembly.canary import CANARY, LOCK, Canary
from gateway.directory.records.names import FACTS
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 0.3


class Running:
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
    async with Running(store) as running:
        await running.until(lambda one: len(one.lags) >= 2)
    assert all(lag > 0 for lag in running.lags)
    assert await store.generation() >= 2
    assert CANARY.startswith(FACTS)
    _, [value] = await store.read([CANARY])
    assert value == b"w"


async def test_a_worker_that_does_not_acknowledge_shows_in_the_lag(store):
    await store.put_hash(b"{cachegate}:workers", {b"stopped": b"0:1"})
    async with Running(store) as running:
        await running.until(lambda one: one.lags)
    assert running.lags[0] >= LEASE_SECONDS


async def test_one_worker_of_the_fleet_measures_and_the_others_report_no_lag(store):
    async with Running(store, "a") as first:
        await first.until(lambda one: one.lags)
        async with Running(store, "b") as second:
            await second.until(lambda one: len(one.lags) >= 3)
            assert set(second.lags) == {0.0}


async def test_when_it_ends_another_takes_over(store):
    async with Running(store, "a") as first:
        await first.until(lambda one: one.lags)
    async with Running(store, "b") as second:
        await second.until(lambda one: one.lags)
        assert second.lags[-1] == 0.0
        # The lock expires by itself; here it is made to expire sooner.
        await store._client.execute_command("PEXPIRE", LOCK, 1)
        await second.until(lambda one: one.lags[-1] > 0.0)


async def test_a_server_that_is_gone_is_a_failure_and_no_measurement(store):
    lost = RedisStore("redis://127.0.0.1:1")
    async with Running(lost) as running:
        await running.until(lambda one: len(one.failures) >= 2)
    assert all(isinstance(one, Unavailable) for one in running.failures)
    assert running.lags == []
    await lost.close()
