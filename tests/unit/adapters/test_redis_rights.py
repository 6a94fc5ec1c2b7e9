"""The documented ACL line suffices, and each rule that is removed from it is reported as missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.adapters.redis_marks import GENERATION, GROUP, encode_group
from gateway.adapters.redis_rights import KEYS_RULE, LOOKED_AT, NEEDED
from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_stream import LOST, STREAM, RedisStream
from gateway.adapters.redis_stream import RIGHTS as STREAM_RIGHTS
from gateway.model.errors import Unavailable
from gateway.model.stores import GroupSize, Moment

ROOT = Path(__file__).parents[3]
ALL_KEYS = ("~*", "resetchannels", "-@all")

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(new_tcp_valkey):
    return new_tcp_valkey("appendonly yes", "appendfsync always")


def url_of(server, user="gateway"):
    return f"redis://{user}:pw@127.0.0.1:{server.port}"


def give(server, *rules):
    server.set_user("gateway", "reset", "on", ">pw", *rules)


async def missing(server):
    store = RedisStore(url_of(server))
    try:
        return await store.missing_rights()
    finally:
        await store.close()


async def set_group(server, servers):
    """Set the group's size, so that replicas are waited for."""
    with server.client(username="admin", password="admin") as client:
        client.hset(GENERATION, GROUP, encode_group(GroupSize(servers=servers)))


def documented_rules():
    """The rules of the line in docs/operators/redis.md, after the name and the password."""
    [line] = re.findall(
        r"^ACL SETUSER cachegate on '>PASSWORD' (.*)$",
        (ROOT / "docs/operators/redis.md").read_text(),
        re.MULTILINE,
    )
    return line.replace("'", "").split()


async def test_the_documented_line_is_what_is_needed(server):
    assert sorted(documented_rules()) == sorted((*NEEDED, *LOOKED_AT))
    give(server, *documented_rules())
    assert await missing(server) == ()
    store = RedisStore(url_of(server))
    report = await store.check_server()
    assert (report.missing_rights, report.appendfsync, report.has_waitaof) == ((), "always", True)
    await store.close()


def example_rules():
    """The rules of the gateway's user in the example for three servers."""
    users = (ROOT / "deploy/redis/users.acl").read_text()
    [line] = re.findall(r"^user cachegate on ><password> (.*)$", users, re.MULTILINE)
    return line.split()


def test_the_user_of_the_example_for_three_servers_has_the_same_rules_and_those_of_the_audit_stream():
    assert sorted(example_rules()) == sorted(("resetchannels", "-@all", *documented_rules(), *STREAM_RIGHTS))


def test_the_rights_of_the_audit_stream_are_documented():
    for name in ("redis.md", "audit-delivery.md"):
        assert " ".join(STREAM_RIGHTS) in (ROOT / "docs/operators" / name).read_text(), name


async def test_the_audit_stream_runs_as_the_user_of_the_example(server):
    """With a group that loses entries unread, and one that has not acknowledged them."""
    give(server, *example_rules())
    stream = RedisStream(url_of(server), "node-1", cap_bytes=64 << 10)
    with server.client(username="admin", password="admin") as client:
        for group in ("slow", "taken"):
            client.xgroup_create(STREAM, group, 0, mkstream=True)
        lost = 0
        for number in range(4):
            records = [(f"id-{number}-{at}", f"c{number}", b" " * 500) for at in range(50)]
            lost += (await stream.append(records, f"c{number}", f"c{number + 1}")).lost
            client.xreadgroup("taken", "reader", {STREAM: ">"})
        assert lost > 0
        assert client.hlen(LOST) == 2
    await stream.close()


@pytest.mark.parametrize("rule", sorted({*NEEDED} - {KEYS_RULE}))
async def test_a_right_that_is_taken_away_is_named(server, rule):
    give(server, *documented_rules(), rule.replace("+", "-"))
    assert await missing(server) == (rule,)


async def test_all_that_is_missing_is_named_at_once(server):
    give(server, "+multi", "+get", KEYS_RULE)
    assert set(await missing(server)) == {*NEEDED} - {"+multi", "+get", KEYS_RULE}


async def test_keys_of_others_only_are_named(server):
    give(server, *(rule for rule in documented_rules() if rule != KEYS_RULE), "~others:*")
    assert await missing(server) == (KEYS_RULE,)


async def test_looking_changes_nothing_and_leaves_a_connection_that_works(server):
    give(server, *documented_rules())
    store = RedisStore(url_of(server))
    with server.client(username="admin", password="admin") as client:
        for _ in range(3):
            assert await store.missing_rights() == ()
            assert await store.generation() == 0
        assert client.keys("*") == []
    await store.close()


async def test_without_the_right_to_transactions_nothing_is_tried_outside_of_one(server):
    give(server, *documented_rules(), "-multi")
    with server.client(username="admin", password="admin") as client:
        client.set("{cachegate}:f:rights", "mine")
        assert await missing(server) == ("+multi",)
        assert client.get("{cachegate}:f:rights") == b"mine"


@pytest.mark.parametrize(
    ("rule", "command"),
    [("-hmget", "HMGET"), ("-mget", "MGET"), ("-info", "INFO"), ("-wait", "WAIT"), ("-hgetall", "HGETALL")],
)
async def test_a_command_that_is_refused_meanwhile_is_named(server, rule, command):
    give(server, *documented_rules(), rule)
    store = RedisStore(url_of(server))
    if command in {"HMGET", "MGET"}:
        work = store.read([b"{cachegate}:f:a"])
    else:
        await set_group(server, 2)
        work = store.look(Moment(), hold_seconds=0.01)
    with pytest.raises(Unavailable, match=f"run {command}: .*ACL SETUSER"):
        await work
    await store.close()


async def test_a_command_that_a_script_may_not_run_is_named(server):
    give(server, *documented_rules(), "-set")
    store = RedisStore(url_of(server))
    with pytest.raises(Unavailable, match=r"run SET: .*ACL SETUSER"):
        await store.hold(b"{cachegate}:lock", "me", seconds=1)
    await store.close()


async def test_keys_that_are_refused_meanwhile_are_named(server):
    give(server, *(rule for rule in documented_rules() if rule != KEYS_RULE), "~others:*")
    store = RedisStore(url_of(server))
    with pytest.raises(Unavailable, match=r"\{cachegate\}:\*"):
        await store.generation()
    await store.close()
