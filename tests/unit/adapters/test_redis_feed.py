"""The feed against a real server: what it reports, in which order, and what ends a connection."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_feed import RedisFeed
from gateway.adapters.redis_fleet import WORKERS
from gateway.adapters.redis_marks import GENERATION
from gateway.adapters.redis_transaction import STEPS
from gateway.adapters.redis_url import RedisLimits, parse_redis_url
from gateway.model.stores import GroupSize, Moment

pytestmark = pytest.mark.anyio

PREFIX = b"{cachegate}:f:"
FACT, OTHER = PREFIX + b"t:acme", PREFIX + b"t:globex"
QUICK = RedisLimits(connect_seconds=0.3, operation_seconds=0.3)


@dataclass
class Listener:
    """Records what it is told, and acknowledges what it is told was applied."""

    told: list = field(default_factory=list)
    renewals: list = field(default_factory=list)
    acknowledged: int = 0
    is_behind: bool = False
    note: Moment | None = None
    marks: dict = field(default_factory=dict)

    def connected(self, moment, group):
        self.told.append(("connected", moment.generation, moment.history, group))
        self.acknowledged = moment.generation
        self.marks = {moment.generation: moment.mark}

    def refused(self):
        self.told.append(("refused",))

    def disconnected(self):
        self.told.append(("disconnected",))

    def changed(self, names):
        self.told.append(("changed", None if names is None else sorted(names)))

    def applied(self, steps):
        self.marks |= dict(steps)
        self.told += [("applied", generation) for generation, _ in steps]
        self.acknowledged = steps[-1][0]

    def renewed(self, renewal):
        self.renewals.append(renewal)

    def kinds(self):
        return [one[0] for one in self.told]


class Follow:
    """A feed that runs as long as the context lasts."""

    def __init__(self, url, **more):
        more = {"worker": "w", "prefix": PREFIX, "renew_seconds": 0.05, "clock": SystemClock()} | more
        more.setdefault("lease_seconds", 1.0)
        self.limits = more.pop("limits", QUICK)
        self.feed = RedisFeed(parse_redis_url(url), self.limits, **more)
        self.listener = Listener()

    async def __aenter__(self):
        self.task = asyncio.create_task(self.feed.run(self.listener))
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task

    async def until(self, holds, seconds=5.0):
        async with asyncio.timeout(seconds):
            while not holds(self.listener):  # noqa: ASYNC110 -- the listener is no event
                await asyncio.sleep(0.002)
        return self.listener

    async def connected(self, times=1):
        return await self.until(lambda one: one.kinds().count("connected") >= times and one.renewals)


def writing(*names, value=b"1"):
    async def plan(snapshot, batch):
        batch.facts.update(dict.fromkeys(names, value))

    return plan


class Relay:
    """A relay to the real server that can drop data in either direction."""

    def __init__(self, url):
        self.target = unquote(urlsplit(url).path)
        self.drops_replies = self.drops_requests = False
        self.writers = set()
        self.serving = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*self.serving)

    async def serve(self, reader, writer):
        self.serving.add(asyncio.current_task())
        back_reader, back_writer = await asyncio.open_unix_connection(self.target)
        self.writers |= {writer, back_writer}
        await asyncio.gather(
            self.pass_on(reader, back_writer, lambda: self.drops_requests),
            self.pass_on(back_reader, writer, lambda: self.drops_replies),
        )

    async def pass_on(self, reader, writer, is_dropped):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not is_dropped():
                    writer.write(data)
                    await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_feed_begins_with_the_generation_and_the_history_of_the_moment(store, valkey_url):
    await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        listener = await follow.connected()
        history = await store.history()
        assert listener.told == [("connected", 1, history, 1)]
        moment = await store.moment()
        assert {(one.moment, one.group, one.held) for one in listener.renewals} == {(moment, 1, 1)}


async def test_an_empty_server_is_generation_nought_of_no_history(valkey_url):
    async with Follow(valkey_url) as follow:
        assert (await follow.connected()).told[0] == ("connected", 0, "", 1)


async def test_each_transaction_is_told_whole_and_then_counted_as_applied(store, valkey_url):
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await store.transact(writing(FACT, OTHER))
        await store.transact(writing(FACT))
        listener = await follow.until(lambda one: ("applied", 2) in one.told)
    told = listener.told[1:]
    for names, generation in (([FACT, OTHER], 1), ([FACT], 2)):
        at = told.index(("applied", generation))
        heard = {name for kind, *rest in told[:at] if kind == "changed" for name in rest[0]}
        assert {*names, STEPS + f"{generation}:{listener.marks[generation]}".encode()} <= heard
    # Changed names are reported before their generation is acknowledged.
    assert told[0][0] == "changed"


async def test_only_facts_are_told_of(store, raw, valkey_url):
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await raw.set(b"{cachegate}:i:index", b"1")
        await raw.set(b"somebody-elses", b"1")
        await store.transact(writing(FACT))
        listener = await follow.until(lambda one: ("applied", 1) in one.told)
    heard = [name for kind, *rest in listener.told if kind == "changed" for name in rest[0]]
    assert all(name.startswith(PREFIX) for name in heard)


async def test_a_fact_that_somebody_changed_by_hand_is_told_without_a_new_generation(store, raw, valkey_url):
    await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await raw.delete(FACT)
        listener = await follow.until(lambda one: ("changed", [FACT]) in one.told)
        assert listener.acknowledged == 1


async def test_an_old_step_that_is_cleared_away_takes_nothing_back(store, raw, valkey_url):
    async with Follow(valkey_url) as follow:
        await follow.connected()
        first, *_ = [(await store.transact(writing(FACT)))[1] for _ in range(3)]
        await follow.until(lambda one: ("applied", 3) in one.told)
        step = STEPS + f"1:{first.mark}".encode()
        await raw.delete(step)
        listener = await follow.until(lambda one: ("changed", [step]) in one.told)
        assert listener.acknowledged == 3


async def test_a_renewal_registers_the_worker_with_what_it_applied(store, raw, valkey_url):
    async with Follow(valkey_url, worker="node:7:ab") as follow:
        await follow.connected()
        await store.transact(writing(FACT))
        async with asyncio.timeout(5):
            while (await store.look(Moment())).workers[0].applied != 1:  # noqa: ASYNC110 -- the register is no event
                await asyncio.sleep(0.002)
        [worker] = (await store.look(Moment())).workers
        assert worker.worker == "node:7:ab"
    assert (await raw.hget(WORKERS, "node:7:ab")).startswith(b"1:")


async def test_its_renewals_say_how_long_the_lease_is(store, valkey_url):
    async with Follow(valkey_url, lease_seconds=7.5) as follow:
        await follow.connected()
        assert (await store.look(Moment())).lease_seconds == 7.5


async def test_a_change_is_acknowledged_at_once_and_not_at_the_next_renewal(store, valkey_url):
    async with Follow(valkey_url, renew_seconds=30.0) as follow:
        await follow.connected()
        await store.transact(writing(FACT))
        await follow.until(lambda one: one.renewals[-1].moment.generation == 1, seconds=2.0)
        assert (await store.look(Moment())).workers[0].applied == 1


async def test_what_cannot_be_acknowledged_yet_is_tried_again_long_before_the_next_renewal(store, valkey_url):
    async with Follow(valkey_url, renew_seconds=30.0) as follow:
        await follow.connected()
        follow.listener.is_behind = True
        await store.transact(writing(FACT))
        listener = await follow.until(lambda one: len(one.renewals) >= 5, seconds=10.0)
        listener.is_behind = False
        await store.transact(writing(OTHER))
        await follow.until(lambda one: one.renewals[-1].moment.generation == 2, seconds=10.0)


async def test_a_renewal_says_when_it_was_sent_and_not_when_it_was_answered(valkey_url):
    class Clock:
        time = 5.0

        def monotonic(self):
            self.time += 1.0
            return self.time

    async with Follow(valkey_url, clock=Clock()) as follow:
        await follow.until(lambda one: len(one.renewals) >= 3)
    assert [one.sent_at for one in follow.listener.renewals[:3]] == [6.0, 7.0, 8.0]


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
async def test_a_server_that_was_emptied_is_a_null_push_and_a_new_beginning(store, raw, valkey_url, command):
    await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await raw.execute_command(command)
        listener = await follow.connected(times=2)
        kinds = listener.kinds()
        assert kinds[:4] == ["connected", "changed", "disconnected", "connected"]
        assert listener.told[1] == ("changed", None)
        assert listener.told[3] == ("connected", 0, "", 1)


async def test_a_killed_connection_is_made_anew_with_the_generation_of_then(store, raw, valkey_url):
    async with Follow(valkey_url) as follow:
        await follow.connected()
        [feed] = [one for one in await raw.client_list() if one["name"] == "cachegate-feed"]
        await raw.client_kill_filter(_id=feed["id"])
        await store.transact(writing(FACT))
        listener = await follow.connected(times=2)
        assert ("disconnected",) in listener.told
        assert listener.told[-1][1] == 1 or ("applied", 1) in listener.told
        assert follow.feed.reconnects == 1


async def test_a_change_while_the_feed_connects_is_never_lost(store, raw, valkey_url):
    # Facts are written all the time while the feed reconnects repeatedly: each generation that it reports as
    # applied was either its starting point or was pushed to it.
    async with Follow(valkey_url) as follow:
        await follow.connected()
        for number in range(40):
            await store.transact(writing(PREFIX + b"t:%d" % number))
            if number % 4 == 0:
                for one in await raw.client_list():
                    if one["name"] == "cachegate-feed":
                        await raw.client_kill_filter(_id=one["id"])
        listener = await follow.until(lambda one: one.acknowledged == 40)
    known = None
    for kind, *rest in listener.told:
        if kind == "connected":
            known = rest[0]
            heard = set()
        elif kind == "changed":
            heard |= set(rest[0])
        elif kind == "applied":
            missing = {PREFIX + b"t:%d" % (number - 1) for number in range(known + 1, rest[0] + 1)} - heard
            assert not missing


async def test_a_reply_that_never_comes_ends_the_connection(store, valkey_url):
    async with Relay(valkey_url) as relay, Follow(relay.url) as follow:
        await follow.connected()
        relay.drops_replies = True
        await follow.until(lambda one: "disconnected" in one.kinds())
        renewals = len(follow.listener.renewals)
        await store.transact(writing(FACT))
        relay.drops_replies = False
        listener = await follow.until(lambda one: len(one.renewals) > renewals)
        assert listener.told[-1][:2] == ("connected", 1)


async def test_requests_that_never_arrive_renew_nothing(valkey_url):
    async with Relay(valkey_url) as relay, Follow(relay.url) as follow:
        await follow.connected()
        relay.drops_requests = True
        await follow.until(lambda one: "disconnected" in one.kinds())
        renewals = len(follow.listener.renewals)
        await asyncio.sleep(0.5)
        assert len(follow.listener.renewals) == renewals


@pytest.mark.slow
async def test_a_wrong_password_never_connects_and_a_right_one_does(tmp_path, tell):
    with EmbeddedValkey(tmp_path).running() as url:
        tell(url, "CONFIG SET requirepass right")
        path = unquote(urlsplit(url).path)
        address = parse_redis_url(url)
        for password, is_let_in in (("wrong", False), ("right", True), (None, False)):
            follow = Follow(url)
            follow.feed._address = replace(address, socket_path=path, password=password)
            async with follow:
                if is_let_in:
                    await follow.connected()
                    continue
                await follow.until(lambda one: len(one.told) >= 2)
                assert set(follow.listener.kinds()) == {"disconnected"}
                assert follow.listener.renewals == []


async def test_a_server_that_is_not_there_is_tried_again(tmp_path):
    async with Follow(f"unix://{tmp_path}/missing.sock") as follow:
        await follow.until(lambda one: len(one.told) >= 3)
        assert set(follow.listener.kinds()) == {"disconnected"}


@pytest.mark.parametrize(
    "answer",
    [
        *(b"+OK\r\n", b"$-1\r\n", b"*1\r\n:1\r\n", b"*2\r\n:1\r\n:2\r\n", b"HTTP/1.1 400\r\n"),
        b"*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
        b"*5\r\n$1\r\n1\r\n$-1\r\n$-1\r\n$-1\r\n$-1\r\n",
    ],
)
async def test_a_server_that_answers_something_else_is_none_of_ours(answer):
    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                writer.write(answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Follow(f"redis://127.0.0.1:{port}") as follow:
            await follow.until(lambda one: len(one.told) >= 2)
            assert set(follow.listener.kinds()) == {"disconnected"}
            assert not follow.task.done()


async def test_a_counter_that_is_no_number_is_not_taken_for_one(raw, valkey_url):
    await raw.hset(GENERATION, mapping={b"counter": b"many", b"history": b"h"})
    async with Follow(valkey_url) as follow:
        await follow.until(lambda one: len(one.told) >= 2)
        assert set(follow.listener.kinds()) == {"disconnected"}


async def test_a_step_that_is_missing_ends_the_connection(store, raw, valkey_url):
    await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await raw.set(STEPS + b"3:" + b"a" * 16, b"")
        listener = await follow.connected(times=2)
        assert ("applied", 3) not in listener.told


async def test_a_step_without_a_mark_ends_the_connection(store, raw, valkey_url):
    # An older version wrote it without a mark, so its history cannot be known.
    await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        await follow.connected()
        await raw.hincrby(GENERATION, "counter", 1)
        await raw.set(STEPS + b"2", b"")
        listener = await follow.connected(times=2)
        assert ("applied", 2) not in listener.told


async def test_a_server_that_lacks_what_was_noted_is_refused_and_nothing_is_registered(
    store, raw, valkey_url
):
    _, moment = await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        follow.listener.note = replace(moment, mark="f" * 16)
        await follow.until(lambda one: one.kinds().count("refused") >= 2)
        assert "connected" not in follow.listener.kinds()
        assert await raw.hgetall(WORKERS) == {}
        follow.listener.note = moment  # accepted by an operator
        await follow.connected()


async def test_a_server_that_loses_what_was_noted_while_it_is_followed_is_refused(store, raw, valkey_url):
    _, moment = await store.transact(writing(FACT))
    async with Follow(valkey_url) as follow:
        await follow.connected()
        follow.listener.note = replace(moment, generation=2)  # stored by another process of this node
        await follow.until(lambda one: "refused" in one.kinds())
        renewals = len(follow.listener.renewals)
        await follow.until(lambda one: one.kinds().count("refused") >= 2)
        assert len(follow.listener.renewals) == renewals


async def test_a_renewal_says_how_many_of_the_group_have_it(store, valkey_url):
    async def grows(_snapshot, batch):
        batch.group = GroupSize(servers=3)

    patient = RedisLimits(operation_seconds=30.0)
    async with Follow(valkey_url, limits=patient) as follow:
        await follow.connected()
        assert (follow.listener.renewals[-1].group, follow.listener.renewals[-1].held) == (1, 1)
        await store.transact(grows)
        listener = await follow.until(lambda one: one.renewals[-1].group == 3)
        assert listener.renewals[-1].held == 1
        # A server without its replicas gives no lease; after a while another server may have its address.
        await follow.until(lambda one: one.kinds().count("connected") >= 2, seconds=20.0)
