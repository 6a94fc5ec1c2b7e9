"""What our user has to be allowed on a Redis server, and whether it is: for the start and `doctor`.

The rules are those of `ACL SETUSER`; docs/operators/redis.md has the whole line. A right that only a worker
needs would else show as a worker that never becomes ready. The commands are queued in a transaction that is
never executed: a server checks each right as it takes a command in, so nothing is changed and all that is
missing is found at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from gateway.adapters.redis_errors import KEYS_RULE, missing_rule

if TYPE_CHECKING:
    from redis.asyncio import Redis

_KEY = b"{cachegate}:f:rights"  # below the prefix that is followed; it is never written
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
"""What cannot be queued; harmless in this order."""

LOOKED_AT = ("+time", "+config|get", "+command|info")
"""What `doctor` asks besides; the gateway works without."""

NEEDED = (KEYS_RULE, *sorted((*_QUEUED, *_AT_ONCE)))


async def find_missing_rights(client: Redis | RedisCluster) -> tuple[str, ...]:
    """The rules that our user lacks, as `ACL SETUSER` takes them. Raises what the client raises.

    Of a Cluster nothing is said: each of its nodes has users of its own.
    """
    if isinstance(client, RedisCluster):
        return ()
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    missing: set[str] = set()
    try:
        for command in _AT_ONCE.values():
            missing |= await _try(connection, command)
        if "+multi" not in missing:  # or what follows would be executed
            missing |= await _try(connection, ("MULTI",))
            for command in _QUEUED.values():
                missing |= await _try(connection, command)
    finally:
        await connection.disconnect(nowait=True)  # and with it goes the transaction
        await pool.release(connection)
    return tuple(sorted(missing))


async def _try(connection: Any, command: tuple[Any, ...]) -> set[str]:
    """The rule without which this was refused; none when it was taken in, or refused for another reason."""
    await connection.send_command(*command)
    try:
        await connection.read_response()
    except ResponseError as error:
        rule = missing_rule(str(error))
        return set() if rule is None else {rule}
    return set()
