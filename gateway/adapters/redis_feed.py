"""The feed: one connection by which a worker hears of every change, and renews its lease.

`CLIENT TRACKING ON BCAST` makes the server push the names of all facts that change, over RESP3, to
this connection. Each transaction also writes a record whose name ends in its generation
(`redis_transaction.py`), so that a push says how far the changes have been heard: the names of one
transaction come in one push, and pushes come in order. A renewal is a script over the same
connection. It registers the worker with the generation it has applied, which acknowledges it, and
returns the generation of the moment.

The client library's asynchronous connections hide pushes behind a pool, so this is a reader of our own
on one socket, with the library's parser. It knows three commands and nothing of facts: what a push or
a renewal means is for the `Listener`.

Whatever goes wrong ends the connection; a new one begins with an empty memory.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import hiredis

from gateway.adapters.redis_connect import connect_raw
from gateway.adapters.redis_errors import translated
from gateway.adapters.redis_fleet import RENEW, WORKERS
from gateway.adapters.redis_transaction import GENERATION, STEPS, counted
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.adapters.redis_url import RedisAddress, RedisLimits
    from gateway.model.ports import MonotonicClock

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0

_NOTHING = object()
_STEP = re.compile(re.escape(STEPS) + rb"([0-9]{1,18})")


class Listener(Protocol):
    """Whoever is told. All calls come from the event loop and return at once."""

    def connected(self, generation: int, history: str) -> None:
        """Changes after this generation will be told; nothing is known of those before."""

    def disconnected(self) -> None:
        """No change will be told until `connected` is called again."""

    def changed(self, names: Iterable[bytes] | None) -> None:
        """These records changed; None: any of them may have."""

    def applied(self, generation: int) -> None:
        """All changes up to this generation have been told."""

    def renewed(self, sent_at: float, generation: int, history: str) -> None:
        """A renewal that was sent then was answered with this generation."""

    @property
    def applied_generation(self) -> int:
        """What to acknowledge."""


class RedisFeed:
    """Keeps a feed connection alive for as long as `run` runs."""

    def __init__(
        self,
        address: RedisAddress,
        limits: RedisLimits,
        *,
        worker: str,
        prefix: bytes,
        renew_seconds: float,
        clock: MonotonicClock,
    ) -> None:
        self._address = address
        self._limits = limits
        self._worker = worker.encode()
        self._prefix = prefix
        self._renew_seconds = renew_seconds
        self._clock = clock
        self.reconnects = 0

    async def run(self, listener: Listener) -> None:
        """Connect, listen, renew; and again, when that ends."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._listen(listener)
            except (Unavailable, OSError, TimeoutError, ssl.SSLError):
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
            finally:
                listener.disconnected()
            self.reconnects += 1
            await asyncio.sleep(pause)

    async def _listen(self, listener: Listener) -> None:
        connection = _Connection(listener)
        async with asyncio.timeout(self._limits.connect_seconds):
            await connect_raw(self._address, self._limits, connection)
        try:
            await self._greet(connection)
            reply = await self._ask(connection, b"HMGET", GENERATION, b"counter", b"history")
            counter, history = _generation(reply)
            # Tracking is on by now: whatever changed after this answer was pushed, and some of it may
            # have been heard already, before we got to run.
            generation = max(counter, connection.heard)
            connection.is_followed = True
            listener.connected(generation, history)
            while not connection.is_over.is_set():
                await self._renew(connection, listener)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._renew_seconds):
                        await connection.news.wait()
        finally:
            connection.close()

    async def _greet(self, connection: _Connection) -> None:
        login: tuple[bytes, ...] = ()
        if self._address.password is not None:
            user = (self._address.username or "default").encode()
            login = (b"AUTH", user, self._address.password.encode())
        await self._ask(connection, b"HELLO", b"3", *login, b"SETNAME", b"cachegate-feed")
        if self._address.db:
            await self._ask(connection, b"SELECT", str(self._address.db).encode())
        await self._ask(connection, b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", self._prefix)

    async def _renew(self, connection: _Connection, listener: Listener) -> None:
        connection.news.clear()
        sent_at = self._clock.monotonic()
        applied = str(listener.applied_generation).encode()
        reply = await self._ask(connection, b"EVAL", RENEW, b"2", GENERATION, WORKERS, self._worker, applied)
        listener.renewed(sent_at, *_generation(reply))

    async def _ask(self, connection: _Connection, *command: bytes) -> Any:
        with translated(self._address.display):
            async with asyncio.timeout(self._limits.operation_seconds):
                return await connection.ask(command)


class _Connection(asyncio.Protocol):
    """One socket: commands out, replies and pushes in."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Any] | None = None
        self.is_followed = False  # before `connected` there is nothing to forget: all of it is flushed there
        self.heard = 0  # the highest generation that a push told of
        self.news = asyncio.Event()  # something was applied that should be acknowledged, or it is over
        self.is_over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # a stream's transport

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_over.set()
        self.news.set()
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("the feed connection broke"))

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        try:
            while (message := self._parser.gets()) is not _NOTHING:
                if isinstance(message, hiredis.PushNotification):
                    self._push(message)
                elif self._reply is not None and not self._reply.done():
                    self._reply.set_result(message)
        except hiredis.ProtocolError:
            self.close()  # whoever speaks there, it is no server of ours

    async def ask(self, command: tuple[bytes, ...]) -> Any:
        """Send a command and await its reply. One at a time: whoever gives up ends the connection."""
        if self._transport is None or self.is_over.is_set():
            raise ConnectionError("the feed connection is closed")
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type] # a tuple of any length
        try:
            reply = await self._reply
        except BaseException:
            self.close()
            raise
        if isinstance(reply, hiredis.ReplyError):
            raise ConnectionError(str(reply))
        return reply

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        names: list[bytes] | None = message[1]
        if names is None:
            # The server forgot what it tracked: only a new beginning tells how far we have heard.
            self._listener.changed(None)
            self.close()
            return
        self.heard = max(
            self.heard, *(int(match[1]) for name in names if (match := _STEP.fullmatch(name))), 0
        )
        if self.is_followed:
            self._listener.changed(names)
            self._listener.applied(self.heard)
            self.news.set()


def _generation(reply: Any) -> tuple[int, str]:
    """Counter and history of a reply; a server that says something else is none of ours."""
    match reply:
        case [bytes() | None as counter, bytes() | None as history]:
            return counted(counter), (history or b"").decode("ascii", "replace")
    raise ConnectionError("the reply is not a generation")
