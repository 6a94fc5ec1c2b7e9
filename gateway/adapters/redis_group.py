"""Reads the state of each server of a replication group and of each Sentinel, for `doctor`.

Each server is asked for the settings that leases and revocations depend on, replicas included: after a
failover a replica's settings apply. A setting that a server does not disclose is None and is not reported as
a fault.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.adapters.redis_sentinels import ANSWER_SECONDS, ask_sentinel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.adapters.redis_sentinels import Host
    from gateway.adapters.redis_url import RedisAddress, RedisLimits

SETTINGS = ("appendonly", "appendfsync", "replica-read-only", "min-replicas-to-write", "min-replicas-max-lag")


class MemberReport(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the group. `settings` holds what it disclosed; empty when it was not reached."""

    where: str
    is_reached: bool
    role: str = ""
    replicas: int = 0  # attached to it
    settings: dict[str, str]


class SentinelReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One Sentinel: the primary it names, the quorum for a failover, and the peers it knows."""

    where: str
    primary: str | None = None  # None: it did not answer, or knows no primary
    quorum: int = 0
    sentinels: int = 0  # itself included
    replicas: int = 0

    @property
    def is_silent(self) -> bool:
        """Whether it did not answer."""
        return self.sentinels == 0


async def load_member(address: RedisAddress, limits: RedisLimits, host: Host) -> MemberReport:
    """Query one server, with the login of the URL."""
    options: dict[str, Any] = {"ssl": True, **dict(address.tls)} if address.is_tls else {}
    client = Redis(
        host=host[0],
        port=host[1],
        username=address.username,
        password=address.password,
        socket_connect_timeout=limits.connect_seconds,
        socket_timeout=limits.operation_seconds,
        protocol=3,
        **options,
    )
    where = f"{host[0]}:{host[1]}"
    try:
        info = await client.info("replication")
        settings: dict[str, str] = {}
        for name in SETTINGS:
            settings |= await _find_setting(client, name)
    except (RedisError, OSError):
        return MemberReport(where=where, is_reached=False, settings={})
    finally:
        await client.aclose()
    return MemberReport(
        where=where,
        is_reached=True,
        role=str(info.get("role", "")),
        replicas=int(info.get("connected_slaves", 0)),
        settings=settings,
    )


async def _find_setting(client: Redis, name: str) -> dict[str, str]:
    try:
        found = await client.config_get(name)
    except RedisError:
        return {}  # hosted servers forbid CONFIG
    return {_text(key): _text(value) for key, value in found.items()}


async def load_sentinels(hosts: Sequence[Host], service: str) -> list[SentinelReport]:
    """Query all Sentinels at the same time."""
    return list(await asyncio.gather(*(_load_sentinel(host, service) for host in hosts)))


async def _load_sentinel(host: Host, service: str) -> SentinelReport:
    where = f"{host[0]}:{host[1]}"
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            [reply] = await ask_sentinel(host, ("SENTINEL", "MASTER", service))
    except OSError:  # TimeoutError is an OSError
        return SentinelReport(where=where)
    if not isinstance(reply, list):
        return SentinelReport(where=where, sentinels=1)
    fields = {_text(key): _text(value) for key, value in zip(reply[::2], reply[1::2], strict=False)}
    return SentinelReport(
        where=where,
        primary=f"{fields.get('ip', '')}:{fields.get('port', '')}",
        quorum=_number(fields.get("quorum")),
        sentinels=1 + _number(fields.get("num-other-sentinels")),
        replicas=_number(fields.get("num-slaves")),
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
