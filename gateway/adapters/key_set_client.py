"""Fetches the key sets (JWKS) of outside issuers.

Who controls the answer controls whose tokens are accepted, and who names the URL is an operator. So:

- https with a verified certificate, to public addresses that `addresses.py` has checked and that are the ones
  connected to. An operator whose issuer is in the own network says so (`private_issuers`), which permits
  private addresses, and plain http as well.
- No redirect is followed: an issuer that moves is a document that changes.
- An answer is JSON by its content type, status 200, unencoded, of a bounded size, within a bounded time from
  the request to its last byte: an issuer that sends a byte a second gets no more.
- Nothing of a client's request is sent. Proxy settings, netrc and cookies of the environment are ignored.

Every failure is `Unavailable(ISSUER_UNDECIDED)`: neither an allow nor a denial.
"""

from __future__ import annotations

import asyncio

import httpx

from gateway.adapters.addresses import AddressError
from gateway.adapters.checked_transport import CheckedTransport
from gateway.model.errors import Reason, Unavailable
from gateway.model.issuers import MAX_KEY_SET_BYTES

FETCH_SECONDS = 4.0
CONNECT_SECONDS = 2.0
MAX_FETCHES = 4  # of one worker at once: a hanging issuer leaves room for the others

_OK = 200
_TYPES = frozenset({"application/json", "application/jwk-set+json"})
_NO_URL = (httpx.InvalidURL, UnicodeError)


class KeySetClient:
    """Fetches key sets in one worker. Belongs to one event loop; `close` it there."""

    def __init__(self, *, private_issuers: bool) -> None:
        self._private = private_issuers
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        limits = httpx.Limits(max_connections=MAX_FETCHES, max_keepalive_connections=0)
        self._transport = CheckedTransport(
            httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), trust_env=False, limits=limits),
            may_be_private=private_issuers,
        )

    async def fetch(self, key_set_url: str) -> bytes:
        """The bytes of a key set. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._slots:
                document = await self._fetch(httpx.URL(key_set_url))
        except (TimeoutError, httpx.HTTPError, AddressError, *_NO_URL) as error:
            raise undecided(_why(error)) from error
        return document

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _fetch(self, url: httpx.URL) -> bytes:
        if (
            url.userinfo
            or not url.host
            or url.scheme not in ({"https", "http"} if self._private else {"https"})
        ):
            raise undecided("its URL is none that is asked; expected https")
        timeouts = httpx.Timeout(FETCH_SECONDS, connect=CONNECT_SECONDS).as_dict()
        headers = {
            "accept": ", ".join(sorted(_TYPES)),
            "accept-encoding": "identity",
            "user-agent": "cachegate",
        }
        asked = httpx.Request("GET", url, headers=headers, extensions={"timeout": timeouts})
        response = await self._transport.handle_async_request(asked)
        try:
            return await _read(response)
        finally:
            await response.aclose()


async def _read(response: httpx.Response) -> bytes:
    if response.status_code != _OK:
        raise undecided(f"it answered with status {response.status_code}")
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() not in _TYPES:
        raise undecided("its answer says that it is no JSON")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise undecided("its answer is encoded, though nobody offered to decode it")
    document = bytearray()
    async for piece in response.aiter_raw():
        document += piece
        if len(document) > MAX_KEY_SET_BYTES:
            raise undecided(f"its answer is larger than {MAX_KEY_SET_BYTES} bytes")
    return bytes(document)


def undecided(why: str) -> Unavailable:
    """The failure of an issuer whose keys could not be had."""
    return Unavailable("issuer", why, Reason.ISSUER_UNDECIDED)


def _why(error: Exception) -> str:
    if isinstance(error, AddressError):
        return str(error)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return f"it took longer than {FETCH_SECONDS:g} s"
    return f"it did not answer ({type(error).__name__})"
