"""The HTTP client for inference servers: one request out, its answer streamed back, byte for byte.

The request is sent as it is given: the target is not normalised, nothing is decompressed, no redirect is
followed, and proxy settings, netrc and cookies of the environment are ignored. The framing is ours alone:
`Host`, the length and the hop-by-hop headers.

`server_connection.py` is one connection, `answer_reader.py` reads one answer. What answers are checked for,
since the next request on a connection may be another tenant's:

- Framing that two parsers could read differently, an answer that does not say where it ends, a switch of
  protocols, headers that do not parse or are too large: refused.
- Bytes after the end of an answer, such as a second answer that nobody asked for (response splitting): the
  connection is closed, and nothing of it is read as the answer of the next request.
- A body that ends early is a failure, never a shorter answer.

A connection is used again only within `KEEP_SECONDS`, which is less than servers keep an idle one (uvicorn
5 s), and not if the server has closed it. A request that was begun to be sent counts as sent, whatever
happened then: a prediction may run, and cost, only once. `InferenceFailed.was_sent` tells.

An answer may begin before the request was sent whole, such as 413 to a large body. Then the rest is not
sent, the answer is passed on, and the connection is not used again. If the server resets the connection right
behind such an answer, the answer may be lost: then it is a failure.

The time-outs: for the connection; for the first byte, from the end of our request on (a cold model is loaded
in it); for each pause within an answer; for each pause of the server's reading of our request. Time that the
client takes to send or to read is not counted.

The text of a failure holds no URL, no key and nothing of an answer (I8).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.adapters.server_connection import BrokenConnectionError, ServerConnection
from gateway.model.errors import CachegateError
from gateway.model.inference import Outbound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence

    from gateway.adapters.answer_reader import AnswerReader

    Headers = Sequence[tuple[bytes, bytes]]

KEEP_SECONDS = 2.0
MAX_KEPT = 32  # idle connections
CHECK_SECONDS = 5.0  # between two health checks of a server
CHECK_ANSWER_SECONDS = 4.0
WRITE_BYTES = 256 * 1024  # at once: the time-out of a server that does not read is for each of these
_READY = 200
_PROBE = Outbound(method="GET", target=b"/readiness", headers=(), body=None)

_PORTS = {"http": 80, "https": 443}
_CHUNKED = b"transfer-encoding: chunked\r\n"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_UNLIKE = frozenset({b"HEAD", b"CONNECT"})  # their answers end in other ways than those of all others

_FRAMING = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"accept-encoding",
    }
)


class InferenceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The time-outs."""

    connect_seconds: float = 2.0
    first_byte_seconds: float = 300.0  # a cold model is downloaded and loaded in it
    idle_seconds: float = 60.0


class InferenceFailed(CachegateError):  # noqa: N818 -- reads as the state it names
    """The server gave no answer, or broke off.

    `was_sent`: whether anything of the request may have reached it; if not, another server may be tried.
    `is_of_server`: whether it says that the server is broken. A time-out does not: one caller can provoke it.
    """

    def __init__(self, why: str, *, was_sent: bool, is_of_server: bool) -> None:
        super().__init__(why)
        self.why, self.was_sent, self.is_of_server = why, was_sent, is_of_server


class Checked(Protocol):
    """A server whose health is checked."""

    @property
    def url(self) -> str:
        """Its URL."""

    def note_check(self, *, is_ready: bool) -> None:
        """Take in the result of a check."""


class UpstreamAnswer:
    """An answer that has begun. `close` it in any case."""

    def __init__(
        self,
        connection: ServerConnection,
        reader: AnswerReader,
        idle_seconds: float,
        finish: Callable[[ServerConnection], None],
    ) -> None:
        self.status = reader.status
        self.headers: list[tuple[bytes, bytes]] = reader.headers
        self.length = reader.length  # of the body, where it is announced
        self._connection, self._idle_seconds, self._finish = connection, idle_seconds, finish
        self._is_closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, not decompressed. Raises `InferenceFailed` if it ends early or pauses."""
        while not self._is_closed:
            try:
                piece = await self._connection.piece(self._idle_seconds)
            except TimeoutError as error:
                raise InferenceFailed("it paused too long", was_sent=True, is_of_server=False) from error
            except BrokenConnectionError as error:
                raise _broke_off(error) from error
            if self._connection.has_all:
                # Before the last piece is given: who has it all may ask again, on the same connection.
                await self.close()
            if piece is not None:
                yield piece

    async def read_whole(self, most_bytes: int) -> bytes:
        """The whole body, and close. Raises `InferenceFailed` where it is larger."""
        body = bytearray()
        try:
            async for piece in self.chunks():
                body += piece
                if len(body) > most_bytes:
                    raise InferenceFailed("its answer is too large", was_sent=True, is_of_server=False)
        finally:
            await self.close()
        return bytes(body)

    async def close(self) -> None:
        """End the answer. A connection whose answer was not read to its end is closed."""
        if not self._is_closed:
            self._is_closed = True
            self._finish(self._connection)


class InferenceClient:
    """The client of all inference servers in one worker. Belongs to one event loop; `close` it there."""

    def __init__(self, limits: InferenceLimits | None = None) -> None:
        self._limits = limits or InferenceLimits()
        self._tls = httpx.create_ssl_context()  # certifi's roots, or those of SSL_CERT_FILE
        self._addresses: dict[str, _Address] = {}  # by URL
        self._pool = _Pool()

    async def send(
        self,
        server_url: str,
        outbound: Outbound,
        body: AsyncIterator[bytes] | None = None,
        *,
        length: int | None = None,
    ) -> UpstreamAnswer:
        """Send one request and wait for the head of its answer. Raises `InferenceFailed`.

        `body` is streamed where `outbound.body` is None, with `length` bytes or, if that is not known, in
        chunks. What it raises comes out of here as it is, and the connection is closed.
        """
        address = self._addresses.get(server_url)
        if address is None:
            address = self._addresses[server_url] = _parse_address(server_url)
        stream = body if outbound.body is None else None
        head = _head(address, outbound, is_streamed=stream is not None, length=length)
        connection = self._pool.take(address) or await self._connect(address)
        try:
            sending = self._begin(connection, head, outbound.body or b"", stream, length)
            reader = await self._answer_of(connection, sending)
        except BaseException:
            connection.abort()
            raise

        def finish(used: ServerConnection) -> None:
            if used.finish():
                self._pool.keep(address, used)

        return UpstreamAnswer(connection, reader, self._limits.idle_seconds, finish)

    async def _connect(self, address: _Address) -> ServerConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: ServerConnection(self._pool.drop),
                    address.host,
                    address.port,
                    ssl=self._tls if address.is_tls else None,
                )
        except OSError as error:  # of the network, TLS or names; a time-out is one as well
            why = f"not reached ({type(error).__name__})"
            raise InferenceFailed(why, was_sent=False, is_of_server=True) from error
        return connection

    def _begin(
        self,
        connection: ServerConnection,
        head: bytes,
        body: bytes,
        stream: AsyncIterator[bytes] | None,
        length: int | None,
    ) -> Coroutine[Any, Any, None] | None:
        """Send what can be sent at once. Returns what sends the rest; None if there is none."""
        idle_seconds = self._limits.idle_seconds
        connection.begin()
        try:
            is_taken = connection.write(head, memoryview(body)[:WRITE_BYTES])
        except BrokenConnectionError as error:
            raise _broke_off(error) from error
        if stream is not None:
            return _send_stream(connection, stream, length, idle_seconds)
        if is_taken and len(body) <= WRITE_BYTES:
            connection.note_request_is_whole()
            return None
        return _send_rest(connection, memoryview(body)[WRITE_BYTES:], idle_seconds)

    async def _answer_of(
        self, connection: ServerConnection, sending: Coroutine[Any, Any, None] | None
    ) -> AnswerReader:
        """Wait for the head of the answer, which may come before the request was sent whole."""
        try:
            if sending is not None:
                reader = await _early_answer(connection, sending)
                if reader is not None:
                    return reader
            deadline = asyncio.get_running_loop().time() + self._limits.first_byte_seconds
            while (reader := connection.find_answer()) is None:
                try:
                    await connection.news_until(deadline)
                except TimeoutError as error:
                    why = "it began no answer in time"
                    raise InferenceFailed(why, was_sent=True, is_of_server=False) from error
        except BrokenConnectionError as error:
            raise _broke_off(error) from error
        return reader

    async def is_ready(self, url: str) -> bool:
        """Whether a server says that it takes requests."""
        try:
            async with asyncio.timeout(CHECK_ANSWER_SECONDS):
                answer = await self.send(url, _PROBE)
                await answer.close()
        except (InferenceFailed, TimeoutError):
            return False
        return answer.status == _READY

    async def check_forever(
        self,
        servers: Iterable[Checked],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Check all servers, each `CHECK_SECONDS`."""
        known = tuple(servers)

        async def check(server: Checked) -> None:
            server.note_check(is_ready=await self.is_ready(server.url))

        while True:
            async with asyncio.TaskGroup() as group:
                for server in known:
                    group.create_task(check(server))
            await sleep(CHECK_SECONDS)

    async def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()


class _Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is."""

    host: str
    port: int
    is_tls: bool
    host_header: bytes
    path: bytes  # before every target


class _Pool:
    """The idle connections. The one that was used last is used next."""

    def __init__(self) -> None:
        self._idle: dict[_Address, dict[ServerConnection, asyncio.TimerHandle]] = {}
        self._count = 0
        self._is_closed = False

    def take(self, address: _Address) -> ServerConnection | None:
        """A connection on which nothing came while it was idle; None if there is none."""
        idle = self._idle.get(address)
        while idle:
            connection, timer = idle.popitem()
            self._count -= 1
            timer.cancel()
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    def keep(self, address: _Address, connection: ServerConnection) -> None:
        """Keep a connection for `KEEP_SECONDS`, unless there are enough."""
        if self._is_closed or self._count >= MAX_KEPT:
            connection.abort()
            return
        self._count += 1
        timer = asyncio.get_running_loop().call_later(KEEP_SECONDS, connection.abort)
        self._idle.setdefault(address, {})[connection] = timer

    def drop(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        for idle in self._idle.values():
            timer = idle.pop(connection, None)
            if timer is not None:
                self._count -= 1
                timer.cancel()

    def close(self) -> None:
        """Close all, and keep no more."""
        self._is_closed = True
        for idle in self._idle.values():
            for connection in tuple(idle):
                connection.abort()


def _parse_address(url: str) -> _Address:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    if not parts.hostname or parts.scheme not in _PORTS:
        raise ValueError("a server has an http or https URL")
    return _Address(
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        is_tls=is_tls,
        host_header=parts.netloc.encode("ascii"),
        path=parts.path.rstrip("/").encode("ascii"),
    )


def _head(address: _Address, outbound: Outbound, *, is_streamed: bool, length: int | None) -> bytes:
    """The head of a request. What would end a line in it, and so begin another, is not sent."""
    method = outbound.method.encode()
    target = address.path + outbound.target
    if not outbound.target.startswith(b"/"):
        raise ValueError("a target begins with a slash")
    if method in _UNLIKE or not _TOKEN.fullmatch(method) or not _TARGET.fullmatch(target):
        raise InferenceFailed("the request cannot be written", was_sent=False, is_of_server=False)
    lines = [method, b" ", target, b" HTTP/1.1\r\nhost: ", address.host_header, b"\r\n"]
    for name, value in outbound.headers:
        if name.lower() in _FRAMING:
            raise ValueError(f"{name!r} is no header of the request but of its framing")
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InferenceFailed("the request cannot be written", was_sent=False, is_of_server=False)
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"accept-encoding: identity\r\n")
    if is_streamed:
        lines.append(_CHUNKED if length is None else b"content-length: %d\r\n" % length)
    elif outbound.body is not None or outbound.method != "GET":
        lines.append(b"content-length: %d\r\n" % len(outbound.body or b""))
    lines.append(b"\r\n")
    return b"".join(lines)


async def _early_answer(
    connection: ServerConnection, sending: Coroutine[Any, Any, None]
) -> AnswerReader | None:
    """Send the request. Returns its answer if that begins before: then the rest is not sent.

    Raises what `sending` raises, and `BrokenConnectionError`.
    """
    task = asyncio.ensure_future(sending)
    task.add_done_callback(lambda _: connection.wake())
    try:
        while not task.done():
            reader = connection.find_answer()
            if reader is not None:
                return reader
            await connection.news_until(None)
        reader = connection.find_answer()
        if reader is None:
            task.result()
        return reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _send_rest(connection: ServerConnection, body: memoryview, idle_seconds: float) -> None:
    try:
        await connection.sent(idle_seconds)
        for start in range(0, len(body), WRITE_BYTES):
            connection.write(body[start : start + WRITE_BYTES])
            await connection.sent(idle_seconds)
    except TimeoutError as error:
        raise _read_too_slowly() from error
    connection.note_request_is_whole()


async def _send_stream(
    connection: ServerConnection, stream: AsyncIterator[bytes], length: int | None, idle_seconds: float
) -> None:
    """Send the client's body. With another length than was announced, it is not sent whole."""
    came = 0

    async def send(*pieces: bytes) -> None:
        try:
            connection.write(*pieces)
            await connection.sent(idle_seconds)
        except TimeoutError as error:
            raise _read_too_slowly() from error

    async for piece in stream:
        came += len(piece)
        if length is not None and came > length:
            break
        if length is not None:
            await send(piece)
        elif piece:  # an empty chunk would end the body
            await send(b"%x\r\n" % len(piece), piece, b"\r\n")
    if length is None:
        await send(b"0\r\n\r\n")
    elif came != length:
        raise InferenceFailed("the body has another length", was_sent=True, is_of_server=False)
    connection.note_request_is_whole()


def _read_too_slowly() -> InferenceFailed:
    return InferenceFailed("it did not read the request", was_sent=True, is_of_server=False)


def _broke_off(error: BrokenConnectionError) -> InferenceFailed:
    return InferenceFailed(str(error), was_sent=True, is_of_server=True)
