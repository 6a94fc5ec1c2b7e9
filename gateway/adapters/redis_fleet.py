"""The register of workers: who has applied which generation, and when each renewed last.

One hash, a field a worker: `<applied generation>:<server time of the last renewal, in milliseconds>`.
Workers write it by their renewals; the barrier reads it. Times are the server's own, so that clocks
of different machines are never compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

WORKERS = b"{cachegate}:workers"
_NUMBER = re.compile(rb"[0-9]{1,18}")

RENEW = b"""
local now = redis.call('TIME')
local milliseconds = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ':' .. string.format('%.0f', milliseconds))
return redis.call('HMGET', KEYS[1], 'counter', 'history')
"""
"""Registers before it answers: whoever commits later and looks for workers finds this one."""


HOLD = b"""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""Takes a lock that is free or ours, and says whether it is ours now."""

LET_GO = b"""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""
"""Lets go of a lock, if it is still ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """One worker, as it is registered."""

    worker: str
    applied: int
    renewed_at: float  # seconds, by the server's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All registered workers, and the server's time when they were read."""

    now: float
    workers: tuple[Registered, ...]


async def load_fleet(client: Redis | RedisCluster) -> Fleet:
    """Read the register."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.execute_command("HGETALL", WORKERS)
        pipe.execute_command("TIME")
        raw_workers, (seconds, microseconds) = await pipe.execute()
    workers = [_parse(name, value) for name, value in raw_workers.items()]
    return Fleet(
        now=int(seconds) + int(microseconds) / 1e6, workers=tuple(one for one in workers if one is not None)
    )


async def drop_workers(client: Any, workers: list[str]) -> None:
    """Take workers off the register: those that said goodbye, and those that are long gone."""
    if workers:
        await client.execute_command("HDEL", WORKERS, *workers)


def _parse(raw_name: bytes, raw_value: bytes) -> Registered | None:
    applied, _, milliseconds = raw_value.partition(b":")
    if not (_NUMBER.fullmatch(applied) and _NUMBER.fullmatch(milliseconds)):
        return None  # nobody's entry; it holds no lease that a renewal of ours gave
    return Registered(
        worker=raw_name.decode("ascii", "replace"),
        applied=int(applied),
        renewed_at=int(milliseconds) / 1000,
    )
