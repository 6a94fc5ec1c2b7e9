"""Checks which ACL rights our Redis user lacks, at start-up and for `doctor`.

The rules are those of `ACL SETUSER`; docs/operators/redis.md has the complete line. Without this check, a
missing right that only a worker needs would show as a worker that never becomes ready. The commands are
queued in a transaction that is never executed: a server checks each right when it queues a command, so all
missing rights are found at once and nothing is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from gateway.adapters.redis_errors import KEYS_RULE, missing_rule

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KEY = b"{cachegate}:f:rights"  # below the tracked prefix; never written
_QUEUED: dict[str, tuple[Any, ...]] = {
    "+client|tracking": ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", _KEY),
    "+del": ("DEL", _KEY),
    "+eval": ("EVAL", "return 0", 0),
    "+get": ("GET", _KEY),
    "+getrange": ("GETRANGE", _KEY, 0, 0),
    "+hdel": ("HDEL", _KEY, "a"),
    "+hget": ("HGET", _KEY, "a"),
    "+hgetall": ("HGETALL", _KEY),
    "+hincrby": ("HINCRBY", _KEY, "a", 1),
    "+hmget": ("HMGET", _KEY, "a"),
    "+hset": ("HSET", _KEY, "a", "b"),
    "+incr": ("INCR", _KEY),
    "+info": ("INFO", "server"),
    "+mget": ("MGET", _KEY),
    "+mset": ("MSET", _KEY, "a"),
    "+pexpire": ("PEXPIRE", _KEY, 1),
    "+sadd": ("SADD", _KEY, "a"),
    "+set": ("SET", _KEY, "a"),
    "+setrange": ("SETRANGE", _KEY, 0, "a"),
    "+smembers": ("SMEMBERS", _KEY),
    "+srem": ("SREM", _KEY, "a"),
    "+wait": ("WAIT", 0, 1),
}
_AT_ONCE: dict[str, tuple[Any, ...]] = {
    "+watch": ("WATCH", _KEY),
    "+unwatch": ("UNWATCH",),
    "+multi": ("MULTI",),
    "+exec": ("EXEC",),
}
"""Commands that cannot be queued; in this order they change nothing."""

LOOKED_AT = ("+time", "+config|get", "+command|info")
"""Rights that only `doctor` uses; the gateway works without them."""

NEEDED = (KEYS_RULE, *sorted((*_QUEUED, *_AT_ONCE)))


async def find_missing_rights(client: Redis | RedisCluster) -> tuple[str, ...]:
    """Return the rules that our user lacks, as `ACL SETUSER` takes them. Raises what the client raises.

    For a Cluster it returns nothing: each of its nodes has its own users.
    """
    if isinstance(client, RedisCluster):
        return ()
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    missing: set[str] = set()
    try:
        for command in _AT_ONCE.values():
            missing |= await _try(connection, command)
        if "+multi" not in missing:  # without MULTI, the following commands would be executed
            missing |= await _try(connection, ("MULTI",))
            for command in _QUEUED.values():
                missing |= await _try(connection, command)
    finally:
        await connection.disconnect(nowait=True)  # this discards the transaction
        await pool.release(connection)
    return tuple(sorted(missing))


async def _try(connection: Any, command: tuple[Any, ...]) -> set[str]:
    """Return the rule without which this command was refused; empty if it was queued or refused otherwise."""
    await connection.send_command(*command)
    try:
        await connection.read_response()
    except ResponseError as error:
        rule = missing_rule(str(error))
        return set() if rule is None else {rule}
    return set()
