"""The audit stream on a real server: its cap, its groups, and what groups that lost entries are told."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from gateway.adapters.redis_stream import LOST, MOST_GROUPS, POSITIONS, STREAM, RedisStream, StreamFullError

pytestmark = pytest.mark.anyio

LINE = b'{"kind":"decision"}' + b" " * 500
CAP = 64 << 10


@pytest.fixture
async def stream(valkey_url, raw):
    await raw.delete(STREAM, POSITIONS, LOST)
    made = RedisStream(valkey_url, "node-1", cap_bytes=CAP)
    yield made
    await made.close()
    await raw.delete(STREAM, POSITIONS, LOST)


def records(first, count, line=LINE):
    return [(f"id-{number}", f"c{number}", line) for number in range(first, first + count)]


async def append(stream, first, count, **more):
    return await stream.append(records(first, count), f"c{first}", f"c{first + count}", **more)


async def fill(stream, first, until, step=50):
    for number in range(first, until, step):
        await append(stream, number, step)


async def read(raw, group, count=10_000):
    found = await raw.xreadgroup(group, "reader", {STREAM: ">"}, count=count)
    entries = found[0][1] if found else []
    if entries:
        await raw.xack(STREAM, group, *[one for one, _ in entries])
    return [fields for _, fields in entries]


async def test_entries_hold_the_record_its_id_its_node_and_the_cursor_in_front_of_it(stream, raw):
    await append(stream, 0, 2)
    [(_, first), (_, second)] = await raw.xrange(STREAM)
    assert first == {b"id": b"id-0", b"node": b"node-1", b"after": b"c0", b"record": LINE}
    assert second[b"after"] == b"c1"


async def test_a_node_that_is_elsewhere_than_the_server_is_told_where_and_appends_nothing(stream, raw):
    await append(stream, 0, 2)
    appended = await append(stream, 0, 2)
    assert appended.moved_to == "c2"
    assert await raw.xlen(STREAM) == 2
    assert (await append(stream, 2, 1)).moved_to is None
    assert (await append(stream, 0, 1, is_forced=True)).moved_to is None


async def test_two_nodes_have_a_position_each(stream, raw, valkey_url):
    other = RedisStream(valkey_url, "node-2", cap_bytes=CAP)
    await append(stream, 0, 2)
    assert (await append(other, 7, 1)).moved_to is None
    await other.close()
    assert [fields[b"node"] for _, fields in await raw.xrange(STREAM)] == [b"node-1", b"node-1", b"node-2"]


@pytest.mark.parametrize("groups", [0, 3])
async def test_the_memory_of_the_stream_stays_below_the_cap(stream, raw, groups):
    for number in range(groups):
        await raw.xgroup_create(STREAM, f"g{number}", 0, mkstream=True)
    await fill(stream, 0, 1000)
    for number in range(groups):  # it takes and never acknowledges: that takes memory as well
        await raw.xreadgroup(f"g{number}", "reader", {STREAM: ">"}, count=10_000)
    await fill(stream, 1000, 3000)
    assert 20 < await raw.xlen(STREAM) < 1000
    assert await raw.memory_usage(STREAM, samples=0) <= CAP


async def test_a_group_that_lost_entries_finds_a_mark_with_the_cursor_of_the_first(stream, raw):
    await raw.xgroup_create(STREAM, "siem", 0, mkstream=True)
    await append(stream, 0, 5)
    assert len(await read(raw, "siem")) == 5
    await fill(stream, 5, 2005)
    found = await read(raw, "siem")
    marks = [one for one in found if b"lost" in one]
    got = [one[b"id"] for one in found if b"record" in one]
    assert marks
    assert {one[b"lost"] for one in marks} == {b"siem"}
    assert json.loads(marks[-1][b"from"]) == {"node-1": "c5"}
    assert got == [b"id-%d" % number for number in range(2005 - len(got), 2005)]


async def test_once_a_group_was_told_the_next_loss_has_a_mark_of_its_own(stream, raw):
    await raw.xgroup_create(STREAM, "siem", 0, mkstream=True)
    await fill(stream, 0, 1000)
    first = [one for one in await read(raw, "siem") if b"lost" in one]
    await fill(stream, 1000, 1050)
    await read(raw, "siem")
    await fill(stream, 1050, 2050)
    second = [one for one in await read(raw, "siem") if b"lost" in one]
    assert json.loads(first[-1][b"from"]) == {"node-1": "c0"}
    assert json.loads(second[-1][b"from"]) == {"node-1": "c1050"}


async def test_a_group_that_keeps_up_is_told_nothing(stream, raw):
    await raw.xgroup_create(STREAM, "siem", 0, mkstream=True)
    got = []
    for number in range(0, 1000, 50):
        await append(stream, number, 50)
        got += await read(raw, "siem")
    assert [one[b"id"] for one in got] == [b"id-%d" % number for number in range(1000)]


async def test_what_was_taken_and_not_acknowledged_counts_as_lost_when_it_is_removed(stream, raw):
    await raw.xgroup_create(STREAM, "siem", 0, mkstream=True)
    await append(stream, 0, 10)
    await raw.xreadgroup("siem", "crashed", {STREAM: ">"}, count=10)
    await fill(stream, 10, 1010)
    summary = await raw.xpending(STREAM, "siem")
    assert summary["pending"] == 0
    marks = [one for one in await read(raw, "siem") if b"lost" in one]
    assert json.loads(marks[-1][b"from"]) == {"node-1": "c0"}


async def test_a_mark_names_every_node_of_which_entries_were_lost(stream, raw, valkey_url):
    other = RedisStream(valkey_url, "node-2", cap_bytes=CAP)
    await raw.xgroup_create(STREAM, "siem", 0, mkstream=True)
    await append(stream, 0, 50)
    await fill(stream, 50, 500)
    await append(other, 7, 5)
    await fill(stream, 500, 1500)
    await other.close()
    marks = [json.loads(one[b"from"]) for one in await read(raw, "siem") if b"lost" in one]
    assert marks[-1] == {"node-1": "c0", "node-2": "c7"}


async def test_a_group_that_never_reads_costs_one_mark_in_the_stream(stream, raw):
    await raw.xgroup_create(STREAM, "dead", 0, mkstream=True)
    await fill(stream, 0, 5000)
    marks = [fields for _, fields in await raw.xrange(STREAM) if b"lost" in fields]
    assert [json.loads(one[b"from"]) for one in marks] == [{"node-1": "c0"}]
    assert await raw.hlen(LOST) == 1


async def test_a_cap_that_was_lowered_is_reached_in_bounded_steps(stream, raw, valkey_url):
    small = RedisStream(valkey_url, "node-2", cap_bytes=CAP // 8)
    large = RedisStream(valkey_url, "node-1", cap_bytes=64 * CAP)
    await fill(large, 0, 3000)
    assert await raw.xlen(STREAM) == 3000
    await append(small, 0, 1)
    assert await raw.xlen(STREAM) < 30
    await small.close()
    await large.close()


async def test_a_server_whose_memory_runs_out_gets_nothing_and_loses_what_the_stream_has(new_tcp_valkey):
    server = new_tcp_valkey("maxmemory 24mb", "maxmemory-policy noeviction")
    stream = RedisStream(f"redis://admin:admin@127.0.0.1:{server.port}", "node-1", cap_bytes=512 << 20)
    with server.client(username="admin", password="admin") as client:
        client.xgroup_create(STREAM, "siem", 0, mkstream=True)
        await fill(stream, 0, 40_000, 200)  # 24 MB and more
        info = client.info("memory")
        assert client.xlen(STREAM) > 5000
        assert info["used_memory"] < info["maxmemory"] * 0.8
        for number in range(5):  # facts take what the stream left, and it gives way in steps
            client.hset("facts", str(number), bytes(1 << 20))
        await append(stream, 40_000, 200)
        assert client.info("memory")["used_memory"] < info["maxmemory"] * 0.8
        for number in range(5, 18):
            client.hset("facts", str(number), bytes(1 << 20))
            with suppress(StreamFullError):
                await append(stream, 50_000, 200, is_forced=True)
        client.config_set("maxmemory", "20mb")  # the server is out of memory
        with pytest.raises(StreamFullError):
            await append(stream, 50_000, 200, is_forced=True)
        assert [fields.keys() for _, fields in client.xrange(STREAM)] == [{b"lost", b"from"}]
        [left] = [json.loads(one) for one in client.hvals(LOST)]
        assert left["from"] == {"node-1": "c0"}
        client.delete("facts")
        assert (await append(stream, 50_000, 200, is_forced=True)).moved_to is None
        [mark] = [fields for _, fields in client.xrange(STREAM) if b"lost" in fields]
        assert json.loads(mark[b"from"]) == {"node-1": "c0"}
    await stream.close()


async def test_more_groups_than_are_kept_account_of_stop_the_stream(stream, raw):
    for number in range(MOST_GROUPS + 1):
        await raw.xgroup_create(STREAM, f"g{number}", 0, mkstream=True)
    with pytest.raises(StreamFullError):
        await append(stream, 0, 1)
