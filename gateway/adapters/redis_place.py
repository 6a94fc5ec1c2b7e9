"""The current address of the Redis primary, and pool connections that reconnect when it changes.

An open connection to a server that was replaced would keep returning old data. So every connection records
the `number` of the place at which it was made. `move` raises the number, and a connection with an older
number reconnects before it is used again.

With Sentinels, the address is asked from them and kept until it proves wrong (`forget`). A DNS name or a
virtual address is resolved by the system at each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_sentinels import find_primary, list_servers
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from gateway.adapters.redis_sentinels import Found, Host


class ServerAddress:
    """The address of the server, as far as it is known, for all connections of one process."""

    def __init__(self, hosts: tuple[Host, ...], service: str | None, *, seconds: float) -> None:
        self.number = 0
        self.found: Found | None = None  # the last answer of the Sentinels
        self._hosts = hosts
        self._service = service
        self._seconds = seconds
        self._known: Host | None = None

    @property
    def is_asked_for(self) -> bool:
        """Whether there are Sentinels to ask."""
        return self._service is not None

    @property
    def silent(self) -> tuple[str, ...]:
        """The Sentinels that did not answer the last time."""
        found = self.found
        return () if found is None else tuple(f"{host}:{port}" for host, port in found.silent)

    async def find(self, *, is_anew: bool = False) -> Host:
        """Return the address to connect to; `is_anew` asks the Sentinels again. Raises `Unavailable`."""
        if self._service is None:
            return self._hosts[0]
        if is_anew or self._known is None:
            self.found = await find_primary(self._hosts, self._service, seconds=self._seconds)
            self._known = self.found.primary
        return self._known

    async def servers(self) -> tuple[Host, ...]:
        """Return all servers that any Sentinel names, unreachable ones too; each may be promoted."""
        if self._service is None:
            return ()
        return await list_servers(self._hosts, self._service)

    def move(self) -> None:
        """Invalidate all connections that are open now."""
        self.number += 1

    def forget(self) -> None:
        """Drop the known address: it was wrong."""
        self._known = None


class _Placed(AbstractConnection):
    """A connection that reconnects when the place has changed."""

    def __init__(self, *, place: ServerAddress, **options: Any) -> None:
        self._place = place
        self._number = -1
        super().__init__(**options)

    async def connect(self) -> None:
        """Connect to the current address, unless it is connected there."""
        if self.is_connected and self._number != self._place.number:
            await self.disconnect(nowait=True)
        if self.is_connected:
            return
        self._number = self._place.number
        await self._find()
        try:
            await super().connect()  # type: ignore[no-untyped-call] # redis-py
        except (RedisConnectionError, OSError):
            self._place.forget()
            raise

    async def _find(self) -> None:
        """Update host and port before connecting; a socket path does not change."""


class _PlacedByAddress(_Placed):
    async def _find(self) -> None:
        if self._place.is_asked_for:
            try:
                self.host, self.port = await self._place.find()
            except Unavailable as failure:
                # The pool handles redis-py's errors only; `translated` restores ours.
                raise RedisConnectionError(failure.why) from failure


class PlacedConnection(_PlacedByAddress, Connection):
    """Over TCP."""


class PlacedSSLConnection(_PlacedByAddress, SSLConnection):
    """Over TLS."""


class PlacedUnixConnection(_Placed, UnixDomainSocketConnection):
    """Over a unix socket."""
