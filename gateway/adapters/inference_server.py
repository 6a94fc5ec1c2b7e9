"""The HTTP client for inference servers: one request out, its answer streamed back, byte for byte.

The request is sent as it is given: the target is not normalised, nothing is decompressed, no redirect is
followed, and proxy settings, netrc and cookies of the environment are ignored. The framing is ours alone:
`Host`, the length and the hop-by-hop headers.

What the servers' answers are checked for, since the next request on a connection may be another tenant's:

- Framing that two parsers could read differently (`Content-Length` beside `Transfer-Encoding`, a length that
  differs or is no number), a switch of protocols, headers that do not parse or are too large: refused.
- Bytes after the end of an answer, such as a second answer that nobody asked for (response splitting): the
  connection is closed, and nothing of it is read as the answer of the next request.
- A body that ends early is a failure, never a shorter answer.

A connection is used again only within `KEEP_SECONDS`, which is less than servers keep an idle one (uvicorn
5 s), and not if the server has closed it. A request that was begun to be sent counts as sent, whatever
happened then: a prediction may run, and cost, only once. `InferenceFailed.was_sent` tells.

The time-outs: for the connection; for the first byte, from the end of our request on (a cold model is loaded
in it); for each pause within an answer; for each pause of the server's reading of our request. Time that the
client takes to send or to read is not counted.

The text of a failure holds no URL, no key and nothing of an answer (I8).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import msgspec

from gateway.adapters import missing_sniffio
from gateway.model.errors import CachegateError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    Headers = Sequence[tuple[bytes, bytes]]

KEEP_SECONDS = 2.0
MAX_KEPT = 32  # idle connections
CHECK_SECONDS = 5.0  # between two health checks of a server
CHECK_ANSWER_SECONDS = 4.0
_READY = 200

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


class OutboundRequest(Protocol):
    """What is sent: the front door's `Outbound`."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def target(self) -> bytes:
        """Path and query, encoded."""

    @property
    def headers(self) -> Headers:
        """All headers but those of the framing."""

    @property
    def body(self) -> bytes | None:
        """The body, or None if it is streamed or there is none."""


class Checked(Protocol):
    """A server whose health is checked."""

    @property
    def url(self) -> str:
        """Its URL."""

    def note_check(self, *, is_ready: bool) -> None:
        """Take in the result of a check."""


class UpstreamAnswer:
    """An answer that has begun. `close` it in any case."""

    def __init__(self, response: httpx.Response, timeouts: dict[str, float | None], idle: float) -> None:
        self._response = response
        timeouts["read"] = idle
        self.status = response.status_code
        self.headers: list[tuple[bytes, bytes]] = [
            (name.lower(), value) for name, value in response.headers.raw
        ]
        length = next((value for name, value in self.headers if name == b"content-length"), None)
        self._length = None if length is None else int(length)  # the parser has verified it

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, not decompressed. Raises `InferenceFailed` if it ends early or pauses."""
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 -- of an asynchronous transport
        pieces, came = aiter(stream), 0
        try:
            async for piece in pieces:
                came += len(piece)
                if came == self._length:
                    # The end is read before the last piece is given: who has it all may not ask again, and
                    # a connection whose answer was not read to its end cannot be used again.
                    await anext(pieces, None)
                    await self._verify_end()
                yield piece
        except httpx.HTTPError as error:
            raise _failure(error, was_sent=True) from error
        await self._verify_end()

    async def _verify_end(self) -> None:
        if not _is_clean(self._response):
            await _discard(self._response)

    async def close(self) -> None:
        """End the answer. A connection whose answer was not read to its end is closed."""
        await self._response.aclose()


class InferenceClient:
    """The client of all inference servers in one worker. Belongs to one event loop; `close` it there."""

    def __init__(self, limits: InferenceLimits | None = None) -> None:
        self._limits = limits or InferenceLimits()
        missing_sniffio.remember()
        self._transport = httpx.AsyncHTTPTransport(
            verify=httpx.create_ssl_context(),  # certifi's roots, or those of SSL_CERT_FILE
            trust_env=False,
            # How many are open at once is bounded where servers are chosen.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=MAX_KEPT, keepalive_expiry=KEEP_SECONDS
            ),
        )

    async def send(
        self,
        server_url: str,
        outbound: OutboundRequest,
        body: AsyncIterator[bytes] | None = None,
        *,
        length: int | None = None,
    ) -> UpstreamAnswer:
        """Send one request and wait for the head of its answer. Raises `InferenceFailed`.

        `body` is streamed where `outbound.body` is None, with `length` bytes or, if that is not known, in
        chunks. What it raises comes out of here as it is, and the connection is closed.
        """
        limits = self._limits
        timeouts: dict[str, float | None] = {
            "connect": limits.connect_seconds,
            "read": None,  # the first byte has a deadline of its own, which 1xx answers do not extend
            "write": limits.idle_seconds,
            "pool": limits.connect_seconds,
        }
        request = _request(server_url, outbound, body, length, timeouts)
        progress, deadline = _Progress(), asyncio.timeout(None)
        request.extensions["trace"] = progress.trace
        try:
            async with deadline:
                progress.on_sent = lambda: deadline.reschedule(
                    asyncio.get_running_loop().time() + limits.first_byte_seconds
                )
                response = await self._transport.handle_async_request(request)
        except TimeoutError as error:
            if not deadline.expired():
                raise  # of the body that the client sends
            raise InferenceFailed("it began no answer in time", was_sent=True, is_of_server=False) from error
        except httpx.HTTPError as error:
            raise _failure(error, was_sent=progress.was_begun) from error
        answer = UpstreamAnswer(response, timeouts, limits.idle_seconds)
        if _has_two_framings(answer.headers):
            await _discard(response)
            raise InferenceFailed("its answer's framing is ambiguous", was_sent=True, is_of_server=True)
        return answer

    async def is_ready(self, url: str) -> bool:
        """Whether a server says that it takes requests."""
        probe = _Probe()
        try:
            async with asyncio.timeout(CHECK_ANSWER_SECONDS):
                answer = await self.send(url, probe)
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
        """Close the connections."""
        await self._transport.aclose()


class _Probe(msgspec.Struct, frozen=True, kw_only=True):
    method: str = "GET"
    target: bytes = b"/readiness"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = None


class _Progress:
    """How far a request came, as the client's own trace tells."""

    def __init__(self) -> None:
        self.was_begun = False
        self.on_sent: Callable[[], None] = lambda: None

    async def trace(self, event: str, _details: dict[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self.was_begun = True
        elif event.endswith("receive_response_headers.started"):
            self.on_sent()


class _Streamed(httpx.AsyncByteStream):
    """The client's body. With another length than was announced, the request ends with its connection."""

    def __init__(self, pieces: AsyncIterator[bytes], length: int | None) -> None:
        self._pieces, self._length = pieces, length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        came = 0
        async for piece in self._pieces:
            came += len(piece)
            if self._length is not None and came > self._length:
                break
            if piece:  # an empty piece would end a chunked body
                yield piece
        if self._length is not None and came != self._length:
            raise InferenceFailed("the body has another length", was_sent=True, is_of_server=False)


def _request(
    server_url: str,
    outbound: OutboundRequest,
    body: AsyncIterator[bytes] | None,
    length: int | None,
    timeouts: dict[str, float | None],
) -> httpx.Request:
    url = httpx.URL(server_url)
    for name, _ in outbound.headers:
        if name.lower() in _FRAMING:
            raise ValueError(f"{name!r} is no header of the request but of its framing")
    if not outbound.target.startswith(b"/"):
        raise ValueError("a target begins with a slash")
    headers = [(b"host", url.netloc), *outbound.headers, (b"accept-encoding", b"identity")]
    content: httpx.AsyncByteStream = httpx.ByteStream(outbound.body or b"")
    if outbound.body is None and body is not None:
        content = _Streamed(body, length)
        framing = (
            (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
        )
        headers.append(framing)
    elif outbound.body is not None or outbound.method not in {"GET", "HEAD"}:
        headers.append((b"content-length", b"%d" % len(outbound.body or b"")))
    target = url.raw_path.rstrip(b"/") + outbound.target
    extensions = {"timeout": timeouts, "target": target}
    return httpx.Request(outbound.method, url, headers=headers, stream=content, extensions=extensions)


def _has_two_framings(headers: Headers) -> bool:
    names = [name for name, _ in headers if name in {b"content-length", b"transfer-encoding"}]
    return len(names) > 1


def _is_clean(response: httpx.Response) -> bool:
    """Whether nothing came after the end of this answer. Else the next request would read it as its answer.

    What was read from the socket already lies in the parser or in the queue before it, neither of which
    httpcore looks at before it uses a connection again. Neither is public: where a place is not found, as
    under TLS, the connection counts as not clean, which costs a new one.
    """
    stream: Any = response.stream
    network: Any = response.extensions["network_stream"]
    try:
        parser = stream._httpcore_stream._stream._connection._h11_state  # noqa: SLF001 -- see above
        queue = network._stream._protocol.read_queue  # noqa: SLF001 -- see above
        return not parser.trailing_data[0] and not queue
    except AttributeError:
        return False


async def _discard(response: httpx.Response) -> None:
    await response.extensions["network_stream"].aclose()
    await response.aclose()


def _failure(error: httpx.HTTPError, *, was_sent: bool) -> InferenceFailed:
    is_slow = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
    return InferenceFailed(
        f"it broke off ({type(error).__name__})" if was_sent else f"not reached ({type(error).__name__})",
        was_sent=was_sent,
        is_of_server=not is_slow,
    )
