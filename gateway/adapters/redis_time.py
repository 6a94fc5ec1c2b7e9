"""Reads a Redis server's clock, for `doctor`, which compares it with ours.

No decision uses it: keys expire by the gateway's own clock. A large difference shows that one of the two
clocks is wrong.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError

from gateway.adapters.redis_url import RedisLimits, make_client, parse_redis_url
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping


async def load_server_time(url: str) -> float:
    """Return seconds since the epoch by the server's clock. Raises `Unavailable`."""
    address = parse_redis_url(url)
    client = make_client(address, RedisLimits())
    try:
        return _seconds(await client.execute_command("TIME"))
    except (RedisError, RedisClusterException, OSError, TypeError, ValueError) as error:
        # Not the error's own text, which may quote the URL with its password.
        why = f"{address.display} did not tell its time ({type(error).__name__})"
        raise Unavailable("redis", why) from error
    finally:
        with suppress(RedisError, OSError):
            await client.aclose()


def _seconds(answer: tuple[Any, Any] | Mapping[str, tuple[Any, Any]]) -> float:
    """Parse TIME. A cluster answers per node; the first node's time is taken."""
    seconds, microseconds = answer if isinstance(answer, tuple | list) else next(iter(answer.values()))
    return int(seconds) + int(microseconds) / 1_000_000
