"""A real primary with a replica: which servers have a write, and what a server's stamp shows."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time

import pytest
import redis as plain_redis

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_feed import RedisFeed
from gateway.adapters.redis_fleet import TOUCH
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_url import RedisLimits, parse_redis_url
from gateway.adapters.valkey_program import find_program
from gateway.assembly.stamp_watch import StampWatch
from gateway.model.errors import NotHeld, Unavailable
from gateway.model.stores import GroupSize, Moment
from tests.ports import free_port

pytestmark = pytest.mark.anyio

PREFIX, HASH = b"{cachegate}:f:", b"{cachegate}:u:a"


class Server:
    """A server in a process of its own."""

    def __init__(self, folder, *lines):
        folder.mkdir()
        self.port = free_port()
        self.lines = ("bind 127.0.0.1", f"port {self.port}", f"dir {folder}", 'save ""', *lines)
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [find_program(), "-"], stdin=subprocess.PIPE, stdout=self.log, stderr=self.log
        )
        self.process.stdin.write("\n".join((*self.lines, "repl-diskless-sync-delay 0")).encode())
        self.process.stdin.close()
        self.url = f"redis://127.0.0.1:{self.port}"

    def ask(self, *command):
        with plain_redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*command)

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def await_that(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except plain_redis.RedisError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_attached(replica):
    return replica.ask("INFO", "replication").get("master_link_status") == "up"


@pytest.fixture
def pair(tmp_path):
    primary = Server(tmp_path / "primary")
    replica = Server(tmp_path / "replica", f"replicaof 127.0.0.1 {primary.port}")
    try:
        await_that(lambda: is_attached(replica))
        yield primary, replica
    finally:
        for server in (primary, replica):
            server.signal(signal.SIGCONT)
            server.stop()


@pytest.fixture
async def store(pair):
    store = RedisStore(pair[0].url)
    yield store
    await store.close()


async def plan(_snapshot, batch):
    batch.facts[PREFIX + b"t:acme"] = b"1"
    batch.group = GroupSize(servers=2)


async def test_all_servers_that_are_there_are_counted(store):
    await store.transact(plan)
    assert await store.count_servers() == 2
    assert (await store.look(Moment())).attached == 1


async def test_a_write_is_held_by_all_once_the_replica_has_it_and_not_while_it_is_stopped(store, pair):
    await store.hold_by_all((await store.transact(plan))[1], seconds=5.0)
    pair[1].signal(signal.SIGSTOP)
    _, moment = await store.transact(plan)
    # Without a write of its own, earlier acknowledgements would be counted for this change.
    for _ in range(2):
        with pytest.raises(NotHeld) as missing:
            await store.hold_by_all(moment, seconds=0.1)
        assert "held by 1 of 2" in missing.value.why
    pair[1].signal(signal.SIGCONT)
    await store.hold_by_all(moment, seconds=5.0)


async def test_while_a_replica_is_waited_for_it_is_prompted_by_another_connection(store, pair):
    _, moment = await store.transact(plan)
    await store.hold_by_all(moment, seconds=5.0)
    pair[1].signal(signal.SIGSTOP)
    before = int(pair[0].ask("GET", TOUCH))
    with pytest.raises(NotHeld):
        await store.hold_by_all(moment, seconds=0.2)
    await store.close()  # waits for the last prompt
    prompts = int(pair[0].ask("GET", TOUCH)) - before - 1
    assert 3 <= prompts <= 30  # one was the write that is waited for


async def test_a_prompt_is_a_write_if_there_are_replicas_and_waits_for_nothing(store, pair):
    await store.hold_by_all((await store.transact(plan))[1], seconds=5.0)
    pair[1].signal(signal.SIGSTOP)
    before = None
    while (
        written := int(pair[0].ask("GET", TOUCH))
    ) != before:  # a prompt of the wait above may be on its way
        before = written
        assert (await store.look(Moment())).held == 1
    assert (await store.look(Moment(), prompts=True)).held == 1
    assert int(pair[0].ask("GET", TOUCH)) == before + 1


async def test_a_server_that_takes_no_writes_is_looked_at_all_the_same(store, pair):
    # A barrier that polls while a replica is gone for a moment, or the primary was just replaced, goes on.
    _, moment = await store.transact(plan)
    await store.hold_by_all(moment, seconds=5.0)
    pair[0].ask("CONFIG", "SET", "min-replicas-to-write", "5")
    for write in (
        store.look(moment, hold_seconds=0.1),
        store.transact(plan),
        store.put_hash(HASH, {b"k": b"1"}),
    ):
        with pytest.raises(Unavailable, match="min-replicas-to-write"):
            await write
    assert (await store.look(moment, prompts=True)).is_ours
    pair[0].ask("CONFIG", "SET", "min-replicas-to-write", "0")
    pair[0].ask("REPLICAOF", "127.0.0.1", pair[1].port)
    assert (await store.look(moment, prompts=True)).is_ours


async def test_a_replica_that_attaches_is_another_stamp(store, pair):
    await store.transact(plan)
    before = await store.look(Moment())
    pair[1].ask("REPLICAOF", "NO", "ONE")
    pair[1].ask("REPLICAOF", "127.0.0.1", pair[0].port)
    await asyncio.to_thread(await_that, lambda: is_attached(pair[1]))
    assert (await store.look(Moment())).stamp != before.stamp


async def test_a_server_that_is_promoted_is_another_stamp_and_the_same_history(store, pair):
    _, moment = await store.transact(plan)
    await store.hold_by_all(moment, seconds=5.0)
    before = await store.look(moment)
    pair[1].ask("REPLICAOF", "NO", "ONE")
    promoted = RedisStore(pair[1].url)
    found = await promoted.look(moment)
    await promoted.close()
    assert found.is_ours
    assert found.stamp != before.stamp


async def test_a_replica_takes_no_write_and_says_what_it_is(store, pair):
    await store.hold_by_all((await store.transact(plan))[1], seconds=5.0)
    replica = RedisStore(pair[1].url)
    for write in (
        replica.transact(plan),
        replica.put_hash(HASH, {b"k": b"1"}),
        replica.look(Moment(), hold_seconds=0.1),
    ):
        with pytest.raises(Unavailable, match="replica"):
            await write
    await replica.close()


class Listener:
    """Records the renewals."""

    note = None
    acknowledged = 0
    is_behind = False

    def __init__(self):
        self.renewals = []
        self.losses = 0

    def connected(self, moment, group):
        pass

    refused = disconnected = changed = applied = lambda *_: None

    def renewed(self, renewal):
        self.renewals.append(renewal)


async def test_a_renewal_counts_the_servers_that_have_it(store, pair):
    await store.transact(plan)
    feed = RedisFeed(
        parse_redis_url(pair[0].url),
        RedisLimits(),
        worker="w",
        prefix=PREFIX,
        renew_seconds=0.02,
        lease_seconds=1.0,
        clock=SystemClock(),
    )
    listener = Listener()
    running = asyncio.create_task(feed.run(listener))

    async def counts(held):
        already = len(listener.renewals)
        async with asyncio.timeout(20):
            while not any(one.held == held for one in listener.renewals[already:]):  # noqa: ASYNC110 -- a list is no event
                await asyncio.sleep(0.01)

    await counts(2)
    pair[1].signal(signal.SIGSTOP)
    await counts(1)
    already = len(listener.renewals)
    await counts(1)
    assert {one.held for one in listener.renewals[already:]} == {1}
    pair[1].signal(signal.SIGCONT)
    await counts(2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


async def _nobody_grows(servers):
    raise AssertionError(servers)


async def test_a_group_that_has_grown_is_noted_by_whoever_watches_unless_an_operator_has_set_it(store, pair):
    seen = []

    async def note(servers):
        async def grows(_snapshot, batch):
            batch.group = GroupSize(servers=servers)

        seen.append(servers)
        await store.transact(grows)

    settling = StampWatch(
        store=store, worker="w", lease_seconds=1.0, clock=Clock(), grow=note, on_failure=print
    )
    for _ in range(2):
        await settling.look()
    assert seen == [2]
    for size, noted in ((GroupSize(servers=1), [2, 2]), (GroupSize(servers=1, is_set=True), [2, 2])):

        async def set_to(_snapshot, batch, size=size):
            batch.group = size

        await store.transact(set_to)
        await settling.look()
        assert seen == noted


async def test_a_stamp_settles_only_once_it_was_seen_for_longer_than_a_lease(store, pair):
    clock = Clock()
    settling = StampWatch(
        store=store, worker="w", lease_seconds=1.0, clock=clock, grow=_nobody_grows, on_failure=print
    )

    async def is_settled():
        await settling.look()
        found = await store.look(Moment())
        return found.settled == found.stamp

    await store.transact(plan)
    assert not await is_settled()
    clock.now += 1.0
    assert not await is_settled()
    clock.now += 0.1
    assert await is_settled()
    pair[1].ask("REPLICAOF", "NO", "ONE")
    pair[1].ask("REPLICAOF", "127.0.0.1", pair[0].port)
    await asyncio.to_thread(await_that, lambda: is_attached(pair[1]))
    for _ in range(2):
        assert not await is_settled()
        clock.now += 0.6
    assert await is_settled()
