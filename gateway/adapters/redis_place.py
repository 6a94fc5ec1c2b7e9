"""Where the server is at the moment, for all connections of one process: those of the pool follow the feed.

A connection that stays open to a server that was replaced would go on giving its old answers. So every
connection knows under which number of the place it was made; `move` raises the number, and a connection
with an older one is made anew before it is used again.

With Sentinels the address is asked for, and kept until somebody finds it wrong. A DNS name or a virtual
address is looked up by the system at each connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.adapters.redis_sentinels import find_primary, list_servers
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from gateway.adapters.redis_sentinels import Found, Host


class Place:
    """The address of the server, as far as it is known."""

    def __init__(self, hosts: tuple[Host, ...], service: str | None, *, seconds: float) -> None:
        self.number = 0
        self.found: Found | None = None  # what the Sentinels said last
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
        """The Sentinels that did not answer when they were asked last."""
        found = self.found
        return () if found is None else tuple(f"{host}:{port}" for host, port in found.silent)

    async def find(self, *, is_anew: bool = False) -> Host:
        """Where to connect to. Anew: asked now, whatever was known. Raises `Unavailable`."""
        if self._service is None:
            return self._hosts[0]
        if is_anew or self._known is None:
            self.found = await find_primary(self._hosts, self._service, seconds=self._seconds)
            self._known = self.found.primary
        return self._known

    async def servers(self) -> tuple[Host, ...]:
        """All that any Sentinel knows of, silent ones as well: each may be promoted. Else none."""
        if self._service is None:
            return ()
        return await list_servers(self._hosts, self._service)

    def move(self) -> None:
        """No connection that is open now is to be used any more."""
        self.number += 1

    def forget(self) -> None:
        """What is known of the address is wrong."""
        self._known = None


class _Placed(AbstractConnection):
    """A connection that is made anew when the place has moved."""

    def __init__(self, *, place: Place, **options: Any) -> None:
        self._place = place
        self._number = -1
        super().__init__(**options)

    async def connect(self) -> None:
        """Connect where the server is now, if not connected there."""
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
        """A socket's path does not move."""


class _PlacedByAddress(_Placed):
    async def _find(self) -> None:
        if self._place.is_asked_for:
            try:
                self.host, self.port = await self._place.find()
            except Unavailable as failure:
                # The pool knows redis-py's errors only; `translated` gives ours back.
                raise RedisConnectionError(failure.why) from failure


class PlacedConnection(_PlacedByAddress, Connection):
    """Over TCP."""


class PlacedSSLConnection(_PlacedByAddress, SSLConnection):
    """Over TLS."""


class PlacedUnixConnection(_Placed, UnixDomainSocketConnection):
    """Over a unix socket."""
