from __future__ import annotations

import pytest

from gateway.adapters import redis_transaction
from gateway.adapters.redis_marks import (
    COUNTER,
    GENERATION,
    GROUP,
    MARK,
    MARKS_PER_BLOCK,
    block_of,
    check_arguments,
    counted,
    encode_group,
    offset_of,
    parse_group,
)
from gateway.adapters.redis_transaction import STEPS, attempt
from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url
from gateway.model.errors import Unavailable, UnknownHistory
from gateway.model.stores import GroupSize, Moment

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(valkey_url):
    client = make_client(parse_redis_url(valkey_url), RedisLimits())
    yield client
    await client.aclose()


async def plan(snapshot, batch):
    batch.facts[b"a"] = b"%d" % snapshot.next_generation


async def test_an_attempt_commits_everything_with_one_step_of_the_generation(client):
    assert (await attempt(client, "a:1", plan, None))[1].generation == 1
    assert await client.execute_command("GET", b"a") == b"1"
    assert await client.execute_command("HGET", GENERATION, COUNTER) == b"1"


async def test_an_attempt_that_somebody_else_overtook_commits_nothing(client):
    async def plan(snapshot, batch):
        await client.execute_command("HINCRBY", GENERATION, COUNTER, 1)
        batch.facts[b"a"] = b"1"

    assert await attempt(client, "a:1", plan, None) is None
    assert await client.execute_command("GET", b"a") is None


async def test_each_commit_makes_a_mark_that_is_found_at_its_counter_and_in_its_push(client):
    moments = [(await attempt(client, "a:1", plan, None))[1] for _ in range(300)]
    assert len({one.mark for one in moments}) == 300
    assert len({one.history for one in moments}) == 1
    for one in moments:
        block = await client.execute_command("GET", block_of(one.generation))
        start = offset_of(one.generation)
        assert block[start : start + 16] == one.mark.encode()
    last = moments[-1]
    assert await client.execute_command("HGET", GENERATION, MARK) == last.mark.encode()
    assert await client.execute_command("EXISTS", STEPS + f"300:{last.mark}".encode()) == 1


async def test_old_marks_make_room_and_a_note_of_them_is_no_longer_known(client, monkeypatch):
    monkeypatch.setattr(redis_transaction, "MAX_BLOCKS", 2)
    moments = [(await attempt(client, "a:1", plan, None))[1] for _ in range(2 * MARKS_PER_BLOCK)]
    assert await client.execute_command("EXISTS", block_of(0)) == 0
    assert await client.execute_command("EXISTS", block_of(MARKS_PER_BLOCK)) == 1
    await attempt(client, "a:1", plan, moments[MARKS_PER_BLOCK])
    with pytest.raises(UnknownHistory):
        await attempt(client, "a:1", plan, moments[MARKS_PER_BLOCK - 2])


async def test_nothing_is_planned_where_the_history_is_not_the_one(client):
    async def never(snapshot, batch):
        raise AssertionError("planned on facts that are not the known ones")

    _, moment = await attempt(client, "a:1", plan, None)
    await attempt(client, "a:1", plan, moment)
    for other in (
        Moment(history=moment.history, generation=1, mark="0" * 16),
        Moment(history=moment.history, generation=9, mark=moment.mark),
        Moment(history="f" * 32, generation=1, mark=moment.mark),
    ):
        with pytest.raises(UnknownHistory):
            await attempt(client, "a:1", never, other)


async def test_the_size_of_the_group_is_a_change_of_its_own(client):
    async def grows(snapshot, batch):
        batch.group = GroupSize(servers=3, is_set=True)

    assert (await attempt(client, "a:1", grows, None))[1].generation == 1
    assert parse_group(await client.execute_command("HGET", GENERATION, GROUP)) == GroupSize(
        servers=3, is_set=True
    )


@pytest.mark.parametrize("raw", [None, b"", b"0", b"s", b"-1", b"x", b"1x"])
def test_what_is_no_size_says_nothing(raw):
    assert parse_group(raw) is None


def test_a_size_says_who_said_it():
    for size in (GroupSize(servers=1), GroupSize(servers=16, is_set=True)):
        assert parse_group(encode_group(size)) == size


def test_without_a_note_nothing_is_checked():
    assert check_arguments(None)[0] == b""


def test_a_counter_is_a_number_and_none_is_nought():
    assert (counted(None), counted(b"0"), counted(b"12")) == (0, 0, 12)
    with pytest.raises(Unavailable):
        counted(b"x")
