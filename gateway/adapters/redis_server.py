"""Reads a Redis server's own report and lists what endangers the facts, for start-up and `doctor`.

The server stores keys and grants. A server that evicts records under memory pressure forgets revocations; one
that does not write to disk forgets everything when it restarts; one that refuses commands to our user shows
only as workers that never become ready. Each problem is reported as a sentence; the caller decides which of
them prevent the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import NoPermissionError, ResponseError

from gateway.adapters.redis_errors import lacking
from gateway.adapters.redis_rights import find_missing_rights

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster


class ServerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A server's answers; None where it did not disclose one."""

    where: str
    product: str  # `valkey` or `redis`
    version: str
    role: str
    maxmemory_policy: str | None
    is_aof_on: bool
    is_aof_healthy: bool
    appendfsync: str | None
    has_waitaof: bool
    missing_rights: tuple[str, ...] = ()  # rules for `ACL SETUSER`

    @property
    def may_evict(self) -> bool:
        """Whether the server may evict records when memory runs short; such a server must not be used."""
        return self.maxmemory_policy not in {None, "noeviction"}

    @property
    def is_durable_before_reply(self) -> bool:
        """Whether a change is on disk when the server acknowledges it."""
        return self.is_aof_on and self.appendfsync == "always"

    @property
    def problems(self) -> tuple[str, ...]:
        """What an operator should change, in sentences; empty if there is nothing."""
        problems: list[str] = []
        if self.missing_rights:
            problems.append(f"it {lacking(self.missing_rights)}")
        if self.may_evict:
            problems.append(
                f"maxmemory-policy is {self.maxmemory_policy}: records could be evicted, and with them "
                "revocations; set it to noeviction"
            )
        if self.role not in {"master", "primary"}:
            problems.append(f"the server is a {self.role}: changes have to go to the primary")
        if not self.is_aof_on:
            problems.append("the append-only file is off: a restart loses changes; set appendonly to yes")
        elif not self.is_aof_healthy:
            problems.append("the last write of the append-only file failed: look at the server's disk")
        elif self.appendfsync not in {None, "always"}:
            problems.append(
                "a power cut can lose the last second of changes, revocations that were sure among them: set "
                "appendfsync to always"
            )
        return tuple(problems)


async def load_server_report(client: Redis | RedisCluster, where: str) -> ServerReport:
    """Query the server; raises what the client raises."""
    missing_rights = await find_missing_rights(client)
    info: dict[str, Any] = await client.execute_command("INFO")
    appendfsync = await _find_setting(client, "appendfsync")
    described = await client.execute_command("COMMAND INFO", "WAITAOF")
    return ServerReport(
        where=where,
        product="valkey" if "valkey_version" in info else "redis",
        version=str(info.get("valkey_version", info.get("redis_version", "unknown"))),
        role=str(info.get("role", "unknown")),
        maxmemory_policy=_text(info.get("maxmemory_policy")),
        is_aof_on=info.get("aof_enabled") == 1,
        is_aof_healthy=info.get("aof_last_write_status", "ok") == "ok",
        appendfsync=appendfsync,
        has_waitaof=bool(described) and described[0] is not None,
        missing_rights=missing_rights,
    )


async def _find_setting(client: Redis | RedisCluster, name: str) -> str | None:
    try:
        found = await client.execute_command("CONFIG", "GET", name)
    except (NoPermissionError, ResponseError):
        return None  # hosted servers forbid CONFIG
    return _text(found.get(name.encode())) if isinstance(found, dict) else None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)
