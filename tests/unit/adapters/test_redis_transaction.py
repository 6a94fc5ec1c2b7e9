from __future__ import annotations

import pytest

from gateway.adapters.redis_transaction import COUNTER, GENERATION, attempt, counted
from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(valkey_url):
    client = make_client(parse_redis_url(valkey_url), RedisLimits())
    yield client
    await client.aclose()


async def test_an_attempt_commits_everything_with_one_step_of_the_generation(client):
    async def plan(snapshot, batch):
        batch.facts[b"a"] = b"%d" % snapshot.next_generation

    assert await attempt(client, "a:1", plan) == 1
    assert await client.execute_command("GET", b"a") == b"1"
    assert await client.execute_command("HGET", GENERATION, COUNTER) == b"1"


async def test_an_attempt_that_somebody_else_overtook_commits_nothing(client):
    async def plan(snapshot, batch):
        await client.execute_command("HINCRBY", GENERATION, COUNTER, 1)
        batch.facts[b"a"] = b"1"

    assert await attempt(client, "a:1", plan) is None
    assert await client.execute_command("GET", b"a") is None


def test_a_counter_is_a_number_and_none_is_nought():
    assert (counted(None), counted(b"0"), counted(b"12")) == (0, 0, 12)
    with pytest.raises(Unavailable):
        counted(b"x")
