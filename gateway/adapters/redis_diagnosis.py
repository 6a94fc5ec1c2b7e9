"""Finds out why a Redis server does not answer: TLS on one side only, or a Sentinel that wants a password.

A server without TLS that receives a TLS handshake waits for the end of a line that never comes; a server with
TLS closes a connection that sends plain commands. To a client both look like a server that is down. So when a
command or the start-up got no answer, the other form is tried once on a separate connection: a plain PING, or
a TLS handshake whose session is not used. No credentials are sent.

Non-goal: anything on the path of a request.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from gateway.adapters.redis_errors import NO_TLS, SENTINEL_LOGIN, RefusedByServer
from gateway.adapters.redis_url import RedisLimits, Topology, parse_redis_url
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.adapters.redis_url import RedisAddress

ONLY_TLS = "speaks TLS on this port: write rediss:// in CACHEGATE_REDIS_URL, or name the port without TLS"
_ONLY_TLS_SENTINEL = "is a Sentinel that speaks TLS, and Sentinels are asked without: give them a plain port"


@asynccontextmanager
async def diagnosed(url: str) -> AsyncIterator[None]:
    """A context that turns an unanswered connection into `RefusedByServer` with the reason that was found."""
    try:
        yield
    except RefusedByServer:
        raise
    except Unavailable as failure:
        if failure.dependency != "redis":
            raise
        found = await find_reason(parse_redis_url(url))
        if found is None:
            raise
        raise RefusedByServer("redis", found) from failure


async def find_reason(address: RedisAddress, limits: RedisLimits | None = None) -> str | None:
    """Return what is known of the first host that answers, as a sentence, or None if none does."""
    seconds = (limits or RedisLimits()).connect_seconds
    probes = [_probe(host, port, address, seconds) for host, port in address.hosts]
    found = await asyncio.gather(*probes)
    return next((one for one in found if one is not None), None)


async def _probe(host: str, port: int, address: RedisAddress, seconds: float) -> str | None:
    where, is_sentinel = f"{host}:{port}", address.topology is Topology.SENTINEL
    answer = await _send_plain_ping(host, port, seconds)
    speaks_without_tls = answer[:1] in {b"+", b"-"}
    if is_sentinel and answer.startswith(b"-NOAUTH"):
        return f"{where} {SENTINEL_LOGIN}"
    if speaks_without_tls:
        return f"{where} {NO_TLS}" if address.is_tls and not is_sentinel else None
    if (is_sentinel or not address.is_tls) and await _speaks_tls(host, port, seconds):
        return f"{where} {_ONLY_TLS_SENTINEL if is_sentinel else ONLY_TLS}"
    return None


async def _send_plain_ping(host: str, port: int, seconds: float) -> bytes:
    """Send a plain PING and return the first bytes of the answer, or nothing if there is none."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return await reader.read(64)
            finally:
                writer.close()
    return b""


async def _speaks_tls(host: str, port: int, seconds: float) -> bool:
    """Whether a TLS handshake works. The certificate is not verified: nothing is sent in the session."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it answered in TLS, with a demand for a client certificate
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
