"""Opens the raw connection of the feed to the Redis primary, for every topology.

With Sentinels, each connection asks them for the primary again; in a Cluster, it goes to the node that holds
our one hash slot. A feed that reconnects after a failover therefore finds the new primary.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode

from gateway.adapters.redis_errors import translated
from gateway.adapters.redis_marks import GENERATION
from gateway.adapters.redis_url import Topology
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from gateway.adapters.redis_place import ServerAddress
    from gateway.adapters.redis_url import RedisAddress, RedisLimits


async def connect_raw(
    address: RedisAddress, limits: RedisLimits, protocol: asyncio.Protocol, place: ServerAddress
) -> None:
    """Connect `protocol` to the server. Does not authenticate."""
    loop = asyncio.get_running_loop()
    if address.socket_path is not None:
        await loop.create_unix_connection(lambda: protocol, address.socket_path)
        return
    with translated(address.display):
        host, port = await _find_primary(address, limits, place)
    context = _tls(address) if address.is_tls else None
    await loop.create_connection(lambda: protocol, host, port, ssl=context)


async def _find_primary(address: RedisAddress, limits: RedisLimits, place: ServerAddress) -> tuple[str, int]:
    if address.topology is not Topology.CLUSTER:
        return await place.find(is_anew=True)
    timeouts = {
        "socket_timeout": limits.operation_seconds,
        "socket_connect_timeout": limits.connect_seconds,
    }
    options: dict[str, Any] = {**timeouts, "username": address.username, "password": address.password}
    if address.is_tls:
        options |= {"ssl": True, **dict(address.tls)}
    cluster = RedisCluster(startup_nodes=[ClusterNode(*one) for one in address.hosts], **options)
    try:
        await cluster.initialize()
        node = cluster.get_node_from_key(GENERATION.decode())
    finally:
        await cluster.aclose()
    if node is None:
        raise Unavailable("redis", f"no node of {address.display} holds our slot")
    return node.host, int(node.port)


def _tls(address: RedisAddress) -> ssl.SSLContext:
    files = dict(address.tls)
    context = ssl.create_default_context(cafile=files.get("ssl_ca_certs"))
    if "ssl_certfile" in files:
        context.load_cert_chain(files["ssl_certfile"], files.get("ssl_keyfile"))
    return context
