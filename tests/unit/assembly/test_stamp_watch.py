"""The stamp watch on a real server: which worker runs it, and when nothing is written down."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_fleet import renew_command
from gateway.adapters.redis_store import RedisStore
from gateway.assembly import stamp_watch as module
from gateway.assembly.stamp_watch import StampWatch
from gateway.model.errors import Unavailable
from gateway.model.stores import Moment

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.02)


class Watching:
    """One worker's stamp watch, for as long as the context lasts."""

    def __init__(self, store, worker="w"):
        self.failures = []
        self.watch = StampWatch(
            store=store,
            worker=worker,
            lease_seconds=0.1,
            clock=SystemClock(),
            grow=self.grow,
            on_failure=self.failures.append,
        )

    async def grow(self, servers):
        raise AssertionError(servers)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.watch.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until(holds):
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 -- the server's state has no event
            await asyncio.sleep(0.01)


async def test_a_server_that_stays_the_same_becomes_settled_and_a_dead_worker_silent(store):
    await store.put_hash(b"{cachegate}:workers", {b"dead": b"3:1"})

    async def is_seen():
        found = await store.look(Moment())
        [worker] = found.workers
        return found.settled == found.stamp and worker.silent_seconds > 0.2

    async with Watching(store) as watching:
        await until(is_seen)
    assert watching.failures == []


async def test_one_worker_watches_and_another_takes_over(store):
    async with Watching(store, "a") as first:

        async def is_watched():
            return first.watch._last is not None

        await until(is_watched)
        async with Watching(store, "b") as second:
            await asyncio.sleep(0.1)
            assert second.watch._last is None
            await store.release(module.LOCK, "a")

            async def has_changed_hands():
                return (first.watch._last is None) != (second.watch._last is None)

            await until(has_changed_hands)


async def test_a_server_that_is_gone_is_said_once():
    lost = RedisStore("redis://127.0.0.1:1")
    async with Watching(lost) as watching:

        async def is_said():
            return bool(watching.failures)

        await until(is_said)
        await asyncio.sleep(0.2)
    assert len(watching.failures) == 1
    with suppress(Unavailable):
        await lost.close()


class SetClock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def a_watch(store, worker, clock, lease_seconds=1.0):
    return StampWatch(
        store=store,
        worker=worker,
        lease_seconds=lease_seconds,
        clock=clock,
        grow=Watching.grow,
        on_failure=print,
    )


async def test_two_that_watch_at_once_do_not_count_one_second_twice(store):
    await store.put_hash(b"{cachegate}:workers", {b"dead": b"3:1"})
    clock = SetClock()
    watches = [a_watch(store, name, clock) for name in ("a", "b", "c")]
    for _ in range(11):
        for watch in watches:
            await watch.look()
        clock.now += 0.5
    [worker] = (await store.look(Moment())).workers
    assert 4.4 < worker.silent_seconds <= 5.0


async def test_a_server_is_not_settled_before_the_longest_lease_of_any_worker_has_passed(store):
    await store._client.execute_command(*renew_command(None, b"w", 0, 1, lease_seconds=5.0))
    clock = SetClock()
    watch = a_watch(store, "a", clock)
    await watch.look()
    for seconds, is_settled in ((1.1, False), (3.9, False), (0.1, True)):
        clock.now += seconds
        await watch.look()
        found = await store.look(Moment())
        assert (found.settled == found.stamp) is is_settled
