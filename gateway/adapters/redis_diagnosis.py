"""Why a Redis server does not answer: whether TLS is spoken on one side only, or a Sentinel wants a password.

Spoken to in TLS, a server that speaks none waits for the end of a line that never comes, and one that
speaks TLS closes a connection on which none is spoken. To a client both look like a server that is gone.
So where a command or the start could not get an answer, the other language is tried once, on a connection
of its own: the word PING, or the start of a TLS session that is not used. No login is sent.

Non-goal: anything that has to be known while requests are served.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from gateway.adapters.redis_errors import NO_TLS, SENTINEL_LOGIN, Refused
from gateway.adapters.redis_url import RedisLimits, Topology, parse_redis_url
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.adapters.redis_url import RedisAddress

ONLY_TLS = "speaks TLS on this port: write rediss:// in CACHEGATE_REDIS_URL, or name the port without TLS"
_ONLY_TLS_SENTINEL = "is a Sentinel that speaks TLS, and Sentinels are asked without: give them a plain port"


@asynccontextmanager
async def diagnosed(url: str) -> AsyncIterator[None]:
    """Within it, a server that did not answer is looked at, and the failure says what was found."""
    try:
        yield
    except Refused:
        raise
    except Unavailable as failure:
        if failure.dependency != "redis":
            raise
        found = await find_reason(parse_redis_url(url))
        if found is None:
            raise
        raise Refused("redis", found) from failure


async def find_reason(address: RedisAddress, limits: RedisLimits | None = None) -> str | None:
    """What is known of the first host that says something, in a sentence; None when none does."""
    seconds = (limits or RedisLimits()).connect_seconds
    looks = [_look(host, port, address, seconds) for host, port in address.hosts]
    found = await asyncio.gather(*looks)
    return next((one for one in found if one is not None), None)


async def _look(host: str, port: int, address: RedisAddress, seconds: float) -> str | None:
    where, is_sentinel = f"{host}:{port}", address.topology is Topology.SENTINEL
    answer = await _say_plainly(host, port, seconds)
    speaks_plainly = answer[:1] in {b"+", b"-"}
    if is_sentinel and answer.startswith(b"-NOAUTH"):
        return f"{where} {SENTINEL_LOGIN}"
    if speaks_plainly:
        return f"{where} {NO_TLS}" if address.is_tls and not is_sentinel else None
    if (is_sentinel or not address.is_tls) and await _speaks_tls(host, port, seconds):
        return f"{where} {_ONLY_TLS_SENTINEL if is_sentinel else ONLY_TLS}"
    return None


async def _say_plainly(host: str, port: int, seconds: float) -> bytes:
    """What comes back for a PING; nothing where nothing does."""
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
    """Whether a TLS session can be begun. Whose it would be does not matter: nothing is said in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it asks for a certificate of ours, in TLS
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
