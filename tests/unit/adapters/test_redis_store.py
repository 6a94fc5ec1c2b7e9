from __future__ import annotations

import asyncio
import contextlib
import gc
import random
from urllib.parse import unquote, urlsplit

import pytest
from redis.asyncio.connection import AbstractConnection

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_marks import GENERATION
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_url import RedisLimits
from gateway.model.errors import Conflict, Unavailable
from tests.ports import free_port

pytestmark = pytest.mark.anyio


def writing(**facts: bytes | None):
    async def plan(snapshot, batch):
        batch.facts.update({name.encode(): value for name, value in facts.items()})

    return plan


async def read(store, names):
    moment, values = await store.read(names)
    return moment.generation, values


class Relay:
    """A relay to the real server that can stall, disconnect or drop replies."""

    def __init__(self, url):
        self.target = unquote(urlsplit(url).path)
        self.cut_after_request: bytes | None = None
        self.is_silent = False
        self.connections = 0
        self.received = b""
        self.was_done = asyncio.Event()  # set once the server answered a request whose answer is withheld
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def serve(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            back_reader, back_writer = await asyncio.open_unix_connection(self.target)
            back = asyncio.create_task(self.answer(back_reader, writer))
            self.tasks.add(back)
            try:
                while data := await reader.read(65536):
                    self.received += data
                    back_writer.write(data)
                    await back_writer.drain()
                    if self.cut_after_request is not None and self.cut_after_request in data:
                        await self.was_done.wait()
                        break
            finally:
                back.cancel()
                back_writer.close()
                writer.close()

    async def answer(self, back_reader, writer):
        while data := await back_reader.read(65536):
            if self.cut_after_request is not None and self.cut_after_request in self.received:
                self.was_done.set()
                continue
            if not self.is_silent:
                writer.write(data)
                await writer.drain()


async def test_an_empty_server_is_at_generation_nought_without_a_history(store):
    assert await store.generation() == 0
    assert await store.history() is None
    assert await read(store, [b"a", b"b"]) == (0, [None, None])
    assert await read(store, []) == (0, [])
    assert await store.members(b"s") == []
    assert await store.hash_field(b"h", b"f") is None
    assert await store.hash_fields(b"h", [b"f", b"g"]) == [None, None]
    assert await store.hash_fields(b"h", []) == []


async def test_each_committed_transaction_raises_the_generation_by_one(store):
    seen = []

    async def plan(snapshot, batch):
        seen.append(snapshot.next_generation)
        batch.facts[b"a"] = b"%d" % snapshot.next_generation

    assert [(await store.transact(plan))[1].generation for _ in range(3)] == seen == [1, 2, 3]
    assert await read(store, [b"a"]) == (3, [b"3"])


async def test_the_history_is_made_once_and_differs_between_servers(store, valkey_url, tell):
    await store.transact(writing(a=b"1"))
    first = await store.history()
    await store.transact(writing(a=b"2"))
    assert await store.history() == first
    assert len(first) == 32
    tell(valkey_url, "FLUSHALL")
    await store.transact(writing(a=b"1"))
    assert await store.history() != first


async def test_an_empty_batch_commits_nothing(store):
    await store.transact(writing(a=b"1"))
    assert (await store.transact(writing()))[1].generation == 1
    assert await store.generation() == 1


async def test_everything_in_a_batch_is_written_and_seen_by_the_next_plan(store):
    async def first(snapshot, batch):
        batch.facts[b"gone"] = b"x"
        batch.set_add += [(b"s", b"1"), (b"s", b"2")]
        batch.hash_put += [(b"h", b"f", b"1"), (b"h", b"g", b"2")]

    async def second(snapshot, batch):
        assert await snapshot.read([b"gone", b"none"]) == [b"x", None]
        assert await snapshot.read([]) == []
        assert set(await snapshot.members(b"s")) == {b"1", b"2"}
        assert await snapshot.hash_field(b"h", b"g") == b"2"
        batch.facts[b"gone"] = None
        batch.set_remove.append((b"s", b"1"))
        batch.hash_drop.append((b"h", b"f"))

    await store.transact(first)
    await store.transact(second)
    assert (await store.read([b"gone"]))[1] == [None]
    assert await store.members(b"s") == [b"2"]
    assert await store.hash_fields(b"h", [b"f", b"g"]) == [None, b"2"]


async def test_a_plan_that_raises_commits_nothing_and_its_own_error_comes_out(store):
    async def plan(snapshot, batch):
        batch.facts[b"a"] = b"1"
        raise Conflict("no")

    with pytest.raises(Conflict):
        await store.transact(plan)
    assert await read(store, [b"a"]) == (0, [None])


async def test_hints_move_no_generation(store):
    await store.put_hash(b"h", {b"f": b"1"})
    await store.put_hash(b"h", {})
    assert await store.hash_field(b"h", b"f") == b"1"
    await store.put_hash(b"h", {b"f": b"", b"g": b"2"})
    assert await store.hash_entries(b"h") == {b"g": b"2"}, "an empty value removes its field"
    assert await store.generation() == 0


async def test_counters_raised_from_many_stores_at_once_lose_nothing(valkey_url):
    stores = [RedisStore(valkey_url) for _ in range(4)]

    async def plan(snapshot, batch):
        (raw,) = await snapshot.read([b"n"])
        batch.facts[b"n"] = b"%d" % (int(raw or 0) + 1)

    done = await asyncio.gather(*(stores[index % 4].transact(plan) for index in range(60)))
    generations = [moment.generation for _, moment in done]
    assert await read(stores[0], [b"n"]) == (60, [b"60"])
    assert sorted(generations) == list(range(1, 61))
    for store in stores:
        await store.close()


async def test_a_plan_that_never_gets_through_gives_up_and_changes_nothing(valkey_url, tell):
    store = RedisStore(valkey_url, limits=RedisLimits(transaction_seconds=0.2))

    async def plan(snapshot, batch):
        tell(valkey_url, "HINCRBY {cachegate}:generation counter 1")
        batch.facts[b"a"] = b"1"

    with pytest.raises(Unavailable, match="kept changing"):
        await store.transact(plan)
    assert (await store.read([b"a"]))[1] == [None]
    await store.close()


@pytest.fixture(params=["as it is", "careless"])
def client_library(request, monkeypatch):
    """redis-py, and a redis-py that keeps a connection whose reply was not read."""
    if request.param == "careless":
        read_response = AbstractConnection.read_response

        async def read_and_never_disconnect(self, *args, **options):
            return await read_response(self, *args, **{**options, "disconnect_on_error": False})

        async def look_away(self):
            return False

        monkeypatch.setattr(AbstractConnection, "read_response", read_and_never_disconnect)
        monkeypatch.setattr(AbstractConnection, "can_read", look_away)


async def test_a_cancelled_read_never_leaves_its_reply_to_another(valkey_url, client_library):
    limits = RedisLimits(pool_connections=4, pool_wait_seconds=10)
    store = RedisStore(valkey_url, limits=limits)
    count, dice = 40, random.Random(7)
    await store.transact(writing(**{f"k{number}": b"v%d" % number * 50 for number in range(count)}))
    wrong = []

    async def read_own(number):
        for _ in range(15):
            _, values = await store.read([b"k%d" % number])
            if values != [b"v%d" % number * 50]:
                wrong.append((number, values))

    async def cancel_many():
        cancelled = 0
        for _ in range(400):
            doomed = asyncio.create_task(store.read([b"k%d" % dice.randrange(count)]))
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(0)
            if dice.random() < 0.3:
                await asyncio.sleep(dice.random() * 0.001)
            cancelled += doomed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await doomed
        return cancelled

    *_, cancelled = await asyncio.gather(*(read_own(number) for number in range(count)), cancel_many())
    assert cancelled > 100
    assert wrong == []
    while store._running:
        await asyncio.wait(tuple(store._running))
    pool = store._client.connection_pool
    assert len(pool._in_use_connections) == 0
    assert len(pool._available_connections) <= limits.pool_connections
    assert store._slots._value == limits.pool_connections
    await store.close()


async def test_a_transaction_whose_caller_left_lets_go_of_everything(store):
    entered, go = asyncio.Event(), asyncio.Event()

    async def plan(snapshot, batch):
        entered.set()
        await go.wait()
        batch.facts[b"a"] = b"1"

    doomed = asyncio.create_task(store.transact(plan))
    await entered.wait()
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    go.set()
    assert (await store.transact(writing(b=b"2")))[1].generation == 2  # the first one ran to its end
    assert await read(store, [b"a", b"b"]) == (2, [b"1", b"2"])


async def test_close_waits_for_what_is_under_way(valkey_url):
    store = RedisStore(valkey_url)
    doomed = [asyncio.create_task(store.read([b"a"])) for _ in range(50)]
    await asyncio.sleep(0)
    for task in doomed:
        task.cancel()
    await store.close()
    assert not store._running


async def test_nobody_listening_is_unavailable_and_names_the_place_but_no_password():
    port = free_port()
    store = RedisStore(f"redis://user:hunter2@127.0.0.1:{port}")
    for call in (
        store.generation(),
        store.read([b"a"]),
        store.transact(writing(a=b"1")),
        store.check_server(),
    ):
        with pytest.raises(Unavailable) as unavailable:
            await call
        assert f"127.0.0.1:{port}" in str(unavailable.value)
        assert "hunter2" not in str(unavailable.value)
    await store.close()


async def test_a_server_that_wants_a_password_is_unavailable_with_the_reason(valkey_url):
    url = valkey_url.replace("unix://", "unix://user:hunter2@")
    store = RedisStore(url)
    with pytest.raises(Unavailable, match="user or password") as unavailable:
        await store.generation()
    assert "hunter2" not in str(unavailable.value)
    await store.close()


async def test_a_server_that_falls_silent_is_unavailable_in_time(valkey_url):
    async with Relay(valkey_url) as relay:
        store = RedisStore(relay.url, limits=RedisLimits(operation_seconds=0.1))
        assert await first_answer(store) == 0
        relay.is_silent = True
        with pytest.raises(Unavailable, match="in time"):
            await store.read([b"a"])
        relay.is_silent = False
        assert await first_answer(store) == 0
        await store.close()


async def first_answer(store):
    """Return the generation once the server answers in time; a busy machine may need retries."""
    while True:
        with contextlib.suppress(Unavailable):
            return await store.generation()


async def test_waiting_for_a_connection_is_bounded(valkey_url):
    async with Relay(valkey_url) as relay:
        limits = RedisLimits(operation_seconds=0.5, pool_connections=2, pool_wait_seconds=0.05)
        store = RedisStore(relay.url, limits=limits)
        await first_answer(store)
        relay.is_silent = True
        results = await asyncio.gather(*(store.generation() for _ in range(10)), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in results)
        assert sum("busy" in str(result) for result in results) == 8
        assert relay.connections <= 2
        await store.close()


async def test_a_read_survives_one_broken_connection(tmp_path):
    server = EmbeddedValkey(tmp_path)
    with server.running() as url:
        store = RedisStore(url)
        await store.transact(writing(a=b"1"))
    with server.running() as again:  # the server was restarted meanwhile
        assert again == url
        assert await read(store, [b"a"]) == (1, [b"1"])
        await store.close()


async def test_a_commit_whose_reply_is_lost_is_said_to_be_unknown_and_not_repeated(valkey_url, store):
    runs = []

    async def plan(snapshot, batch):
        runs.append(await snapshot.read([b"n"]))
        batch.facts[b"n"] = b"1"

    async with Relay(valkey_url) as relay:
        broken = RedisStore(relay.url)
        await broken.generation()
        relay.cut_after_request = b"EXEC"
        with pytest.raises(Unavailable, match="not known"):
            await broken.transact(plan)
        await broken.close()
    assert len(runs) == 1
    assert await read(store, [b"n"]) == (1, [b"1"])


async def test_a_generation_that_is_no_number_is_unavailable(store, valkey_url, tell):
    tell(valkey_url, f"HSET {GENERATION.decode()} counter x")
    for call in (store.generation(), store.read([b"a"]), store.transact(writing(a=b"1"))):
        with pytest.raises(Unavailable, match="counter"):
            await call


async def test_a_refused_command_is_unavailable_and_quotes_no_value(store, valkey_url, tell):
    tell(valkey_url, "SET s sensitive")
    with pytest.raises(Unavailable) as unavailable:
        await store.members(b"s")
    assert "sensitive" not in str(unavailable.value)

    async def plan(snapshot, batch):
        batch.set_add.append((b"s", b"sensitive"))

    with pytest.raises(Unavailable) as unavailable:
        await store.transact(plan)
    assert "sensitive" not in str(unavailable.value)


async def test_values_for_a_while_go_away_by_themselves_and_are_no_change_of_facts(store, valkey_url, tell):
    before = await store.generation()
    await store.put_for({b"a": b"1", b"b": b"\x00\xff"}, 600)
    await store.put_for({}, 10)
    assert await read(store, [b"a", b"b"]) == (before, [b"1", b"\x00\xff"])
    for name in ("a", "b"):
        assert 0 < int(tell(valkey_url, f"PTTL {name}")[1:]) <= 600_000
    await store.put_for({b"a": b"1", b"b": b"\x00\xff"}, 0.001)
    while (await read(store, [b"a", b"b"])) != (before, [None, None]):  # noqa: ASYNC110 -- the server's own clock
        await asyncio.sleep(0.001)


async def test_what_fails_after_its_caller_left_is_complained_of_by_nobody():
    store, complaints = RedisStore("redis://127.0.0.1:1"), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    doomed = asyncio.create_task(store.generation())
    await asyncio.sleep(0)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    del doomed
    with contextlib.suppress(Unavailable):
        await store.close()
    gc.collect()
    assert complaints == []
