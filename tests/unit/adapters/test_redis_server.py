from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_server import ServerReport
from gateway.adapters.redis_store import RedisStore

pytestmark = pytest.mark.anyio

SOUND = ServerReport(
    where="a:1",
    product="redis",
    version="7.2",
    role="master",
    maxmemory_policy="noeviction",
    is_aof_on=True,
    is_aof_healthy=True,
    appendfsync="always",
    has_waitaof=True,
)


async def test_the_embedded_server_has_no_problems(valkey_url):
    store = RedisStore(valkey_url)
    report = await store.check_server()
    await store.close()
    assert report.product == "valkey"
    assert report.version.startswith("9.")
    assert report.is_durable_before_reply
    assert report.has_waitaof
    assert report.problems == ()


async def test_a_server_that_may_evict_is_told_from_one_that_may_not(valkey_url, tell):
    assert tell(valkey_url, "CONFIG SET maxmemory-policy allkeys-lru").startswith(b"+OK")
    store = RedisStore(valkey_url)
    try:
        report = await store.check_server()
    finally:
        tell(valkey_url, "CONFIG SET maxmemory-policy noeviction")
        await store.close()
    assert report.may_evict
    assert "allkeys-lru" in report.problems[0]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"maxmemory_policy": "volatile-ttl"}, "noeviction"),
        ({"role": "slave"}, "primary"),
        ({"is_aof_on": False}, "appendonly"),
        ({"is_aof_healthy": False}, "disk"),
        ({"appendfsync": "everysec"}, "appendfsync"),  # WAITAOF is not used
    ],
)
def test_what_would_cost_facts_is_a_problem(fields, word):
    (problem,) = replace(SOUND, **fields).problems
    assert word in problem


def test_a_sound_server_is_no_problem_even_if_it_will_not_tell_its_settings():
    assert SOUND.problems == ()
    assert replace(SOUND, maxmemory_policy=None, appendfsync=None).problems == ()
