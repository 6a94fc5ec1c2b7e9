"""The HTTP client for the weights provider (questions with a tenant's key) and its storage (files by URL).

`ask` sends one question and reads one whole answer; `open` streams a file. Neither knows what is asked for.

- Host names are resolved and checked by `addresses.py`, and the connection goes to the checked address
  (`checked_transport.py`). Connections are reused for questions only, which all go to one host: two hosts on
  one address never share a connection.
- Proxy settings, netrc and cookies of the environment are ignored. Only `open` follows redirects, and only
  within the same origin. No content encoding is offered, and an encoded answer is refused.
- A question takes less time than its own client waits (5 s). A provider that fails is not asked for a while
  (`circuit.py`). Only failures that concern every caller open the circuit: a status that one caller could
  provoke must not refuse the others, and neither must a queue for our own connections.
- Questions about keys that this gateway does not know ("strangers") have a circuit of their own, so that
  their failures do not stop questions about known keys. This circuit also opens when the provider answers 429
  to any question: questions about known keys then have the provider to themselves.
- A storage that sends too slowly is cut off, so that it does not keep a connection.

Every failure is `Unavailable` (undecided), neither an allow nor a denial (I7). Its text contains no URL, no
key and nothing of an answer (I8).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import msgspec

from gateway.adapters.addresses import AddressError
from gateway.adapters.checked_transport import DEFAULT_PORTS, CheckedTransport
from gateway.model.circuit import Circuit
from gateway.model.errors import ProviderSilentError, Reason, Unavailable
from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from gateway.model.clocks import MonotonicClock

    Headers = Iterable[tuple[bytes, bytes]]

MAX_ANSWER_BYTES = 2 * 1024 * 1024
"""Most bytes that are read of an answer: a page with two thousand files."""

ASK_SECONDS = 4.5  # the engine waits for 5 s
CONNECT_SECONDS = 2.0
MAX_REDIRECTS = 3
MAX_CONNECTIONS = 64  # to the provider, from one worker
MAX_STREAMS = 256  # to its storage: one engine opens 64 at most
SLOT_WAIT_SECONDS = 1.0  # how long a question waits for one of these connections before it is sent
SLOW_SECONDS = 30.0  # of waiting for the storage, in which at least LEAST_BYTES must arrive
LEAST_BYTES = 256 * 1024  # about 9 kB/s: a slow line is faster, and no file takes days

_SERVER_UNAVAILABLE = frozenset({502, 503, 504})  # the provider cannot answer any caller
_NOT_NOW = frozenset({408, 425})
_TOO_MANY = 429
_NO_URL = (httpx.InvalidURL, UnicodeError)  # UnicodeError for a host that IDNA cannot encode (idna.IDNAError)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ProviderAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision of the provider: a status that is a decision, and a body that may hold signed URLs."""

    status: int
    body: bytes

    def __repr__(self) -> str:
        return shown(self, hidden=("body",))


class ProviderStream:
    """A file that the storage is sending."""

    def __init__(self, response: httpx.Response, now: Callable[[], float]) -> None:
        self._response, self._now = response, now
        self.status = response.status_code
        self.headers = tuple((name.lower(), value) for name, value in response.headers.raw)

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they arrive. Raises `Unavailable` if they end early or arrive too slowly."""
        waited, came, began = 0.0, 0, self._now()
        try:
            async for piece in self._response.aiter_raw():
                waited, came = waited + self._now() - began, came + len(piece)
                if waited >= SLOW_SECONDS:
                    if came < LEAST_BYTES:
                        raise undecided("the storage sends too slowly")
                    waited, came = 0.0, 0
                yield piece
                began = self._now()  # time that the client takes to read is not counted against the storage
        except httpx.HTTPError as error:
            raise undecided(f"the storage broke off ({type(error).__name__})") from error


class Provider:
    """The client of one provider in one worker. Belongs to one event loop; `close` it there."""

    def __init__(self, upstream: str, *, private_upstreams: bool, clock: MonotonicClock) -> None:
        self.outcomes: Counter[str] = Counter()
        self._upstream = upstream.rstrip("/")
        self._now = clock.monotonic
        self._circuit = Circuit(now=self._now, chance=random.random)
        self._circuit_for_unknown_keys = Circuit(now=self._now, chance=random.random)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        context = httpx.create_ssl_context()  # certifi's roots, or those of SSL_CERT_FILE
        questions = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=16)
        files = httpx.Limits(max_connections=MAX_STREAMS, max_keepalive_connections=0)
        self._api, self._storage = (
            CheckedTransport(
                httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits),
                may_be_private=private_upstreams,
            )
            for limits in (questions, files)
        )

    @property
    def is_left_alone(self) -> bool:
        """Whether the circuit is open."""
        return self._circuit.is_open

    @property
    def is_left_alone_by_unknown_keys(self) -> bool:
        """Whether the circuit for questions about unknown keys is open."""
        return self._circuit_for_unknown_keys.is_open

    async def ask(
        self,
        question_path: str,
        query: str,
        headers: Headers,
        *,
        seconds: float = ASK_SECONDS,
        is_unknown_key: bool = False,
    ) -> ProviderAnswer:
        """Ask one question. Every status that is a decision is returned, a denial too."""
        has_waited = self._slots.locked()
        try:
            async with asyncio.timeout(SLOT_WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError as error:
            self.outcomes["given-up"] += 1
            raise undecided("too many questions are under way") from error
        try:
            return await self._ask_with_slot(
                f"{question_path}?{query}",
                headers,
                seconds,
                has_waited=has_waited,
                is_unknown_key=is_unknown_key,
            )
        finally:
            self._slots.release()

    @asynccontextmanager
    async def open(self, url: str, headers: Headers, *, method: str = "GET") -> AsyncIterator[ProviderStream]:
        """Open a file of the storage, whatever its status. The caller checks which URLs may be fetched."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                response = await self._follow(httpx.URL(url), tuple(headers), method)
        except (TimeoutError, httpx.HTTPError, *_NO_URL, AddressError) as error:
            raise undecided(_why(error)) from error
        try:
            yield ProviderStream(response, self._now)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        await self._storage.aclose()

    async def _ask_with_slot(
        self, question: str, headers: Headers, seconds: float, *, has_waited: bool, is_unknown_key: bool
    ) -> ProviderAnswer:
        circuit = self._circuit_for_unknown_keys if is_unknown_key else self._circuit
        entered = circuit.enter()
        if entered is None:
            self.outcomes["not-asked"] += 1
            raise ProviderSilentError("it failed lately and is left alone for a moment")
        outcome = "given-up"
        try:
            async with asyncio.timeout(seconds - SLOT_WAIT_SECONDS if has_waited else seconds):
                answer = await self._ask(httpx.URL(f"{self._upstream}{question}"), headers)
            outcome = "refused" if answer.status >= 400 else "answered"  # noqa: PLR2004 -- HTTP's own line
        except (TimeoutError, httpx.HTTPError, *_NO_URL, AddressError, _ProviderUnavailableError) as error:
            # A question with less than its full time, or without a connection, is no sign of a failed
            # provider.
            is_ours = isinstance(error, httpx.PoolTimeout) or (has_waited and isinstance(error, TimeoutError))
            outcome = "given-up" if is_ours else "failed"
            raise (undecided if is_ours else ProviderSilentError)(_why(error)) from error
        except _RateLimitedError as error:
            outcome = "no-sense"
            self._circuit_for_unknown_keys.trip()
            if is_unknown_key:
                circuit.fail(entered)
            raise undecided(str(error)) from error
        except Unavailable:
            outcome = "no-sense"
            raise
        finally:
            self.outcomes[outcome] += 1
            _note(circuit, entered, outcome)
        return answer

    async def _ask(self, url: httpx.URL, headers: Headers) -> ProviderAnswer:
        response = await self._api.handle_async_request(_request("GET", url, headers))
        try:
            status = response.status_code
            if status in _SERVER_UNAVAILABLE:
                raise _ProviderUnavailableError
            if status == _TOO_MANY:
                raise _RateLimitedError(f"it answered with status {status}")
            if status in _NOT_NOW or status >= 500 or 300 <= status < 400:  # noqa: PLR2004 -- HTTP's own
                raise undecided(f"it answered with status {status}")
            return ProviderAnswer(status=status, body=await _read(response))
        finally:
            await response.aclose()

    async def _follow(
        self, url: httpx.URL, headers: tuple[tuple[bytes, bytes], ...], method: str
    ) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._storage.handle_async_request(_request(method, url, headers))
            if response.status_code not in _REDIRECTS:
                return response
            location = response.headers.get("location", "")
            await response.aclose()
            target = url.join(location)
            if not location or _origin(target) != _origin(url):
                raise undecided("the storage led to another place, which is not followed")
            url = target
        raise undecided("the storage led round in circles")


class _ProviderUnavailableError(Exception):
    """The provider says that it cannot answer any caller now."""


class _RateLimitedError(Exception):
    """The provider asks for fewer questions (429)."""


def _note(circuit: Circuit, entered: int, outcome: str) -> None:
    if outcome == "failed":
        circuit.fail(entered)
    elif outcome == "given-up":
        circuit.leave(entered)
    else:
        circuit.succeed(entered)


def undecided(why: str) -> Unavailable:
    """Make the failure for a provider that said neither yes nor no."""
    return Unavailable("upstream", why, Reason.UPSTREAM_UNDECIDED)


def _request(method: str, url: httpx.URL, headers: Headers) -> httpx.Request:
    if url.scheme not in DEFAULT_PORTS or not url.host or url.userinfo:
        raise httpx.InvalidURL("expected a plain http or https URL")
    timeouts = httpx.Timeout(ASK_SECONDS, connect=CONNECT_SECONDS).as_dict()
    ours = ((b"accept-encoding", b"identity"),)
    passed = [(name, value) for name, value in headers if name.lower() != b"accept-encoding"]
    return httpx.Request(method, url, headers=[*passed, *ours], extensions={"timeout": timeouts})


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise undecided("its answer is encoded, though nobody offered to decode it")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise undecided(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme)


def _why(error: Exception) -> str:
    if isinstance(error, AddressError | TimeoutError):
        return str(error) or "it took too long"
    return f"it did not answer ({type(error).__name__})"
