"""Fetches images at URLs for tenants, in place of the inference server, which checks no redirect.

- Only hosts of the tenant's list are asked, by https, and by http where the list says so. All URLs of a
  request are compared with the list before the first is fetched; every redirect is compared anew.
- Host names are resolved and checked by `addresses.py`, and the connection goes to the checked address.
  Private and loopback addresses, and those of metadata services, are never permitted, whatever the list
  says.
- Nothing of the client's request is sent, and no cookie. Proxy settings and netrc of the environment are
  ignored.
- Bytes, time and number are bounded. Nothing is decompressed: an encoded answer is refused.
- What was fetched is handed on as it is, in base64. Whether it is an image, the server says.

A failure is a `Refusal` that does not tell why: its cause is a network that the tenant should not learn
about. No text of this module contains a URL, which may be signed (I8).
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from typing import TYPE_CHECKING

import httpx

from gateway.adapters.addresses import AddressError
from gateway.adapters.checked_transport import CheckedTransport
from gateway.model.errors import Reason, Refusal
from gateway.model.image_hosts import image_host
from gateway.model.limits import MAX_IMAGE_URLS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gateway.model.names import TenantId

MAX_IMAGE_BYTES = 16 * 1024 * 1024
MAX_REQUEST_BYTES = 32 * 1024 * 1024  # of all images of one request
MAX_URL_CHARACTERS = 8192
MAX_REDIRECTS = 3
FETCH_SECONDS = 15.0  # for all images of one request, the wait for a slot included
CONNECT_SECONDS = 3.0
MAX_FETCHES = 16  # requests of one worker whose images are fetched at one time: half a gigabyte at most
MAX_FETCHES_OF_TENANT = 4  # of these: a tenant with a slow host leaves room for others

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_FAILURES = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError, AddressError)


class ImageFetcher:
    """Fetches images in one worker. Belongs to one event loop; `close` it there."""

    def __init__(self, *, private_addresses: bool = False) -> None:
        """`private_addresses` is for tests, whose servers are on loopback."""
        limits = httpx.Limits(max_connections=MAX_FETCHES, max_keepalive_connections=0)
        self._transport = CheckedTransport(
            httpx.AsyncHTTPTransport(verify=httpx.create_ssl_context(), trust_env=False, limits=limits),
            may_be_private=private_addresses,
        )
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._of_tenant: Counter[TenantId | None] = Counter()

    async def fetch(
        self, urls: Sequence[str], hosts: Collection[str], *, tenant: TenantId | None = None
    ) -> list[str]:
        """Return these images in base64, in order.

        Raises `Refusal(FORBIDDEN_IMAGE)` for a URL whose host is not one of these, and
        `Refusal(IMAGE_NOT_FETCHED)` for one that cannot be had within the bounds.
        """
        if len(urls) > MAX_IMAGE_URLS:
            raise Refusal(Reason.IMAGE_NOT_FETCHED)
        parsed = [_permitted(url, hosts) for url in urls]
        if self._of_tenant[tenant] >= MAX_FETCHES_OF_TENANT:
            raise Refusal(Reason.IMAGE_NOT_FETCHED)
        self._of_tenant[tenant] += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS), self._slots:
                return await self._fetch_all(parsed, hosts)
        except _FAILURES:
            raise Refusal(Reason.IMAGE_NOT_FETCHED) from None  # the cause may hold the URL
        finally:
            self._of_tenant[tenant] -= 1
            if not self._of_tenant[tenant]:
                del self._of_tenant[tenant]

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _fetch_all(self, urls: Sequence[httpx.URL], hosts: Collection[str]) -> list[str]:
        images, left = [], MAX_REQUEST_BYTES
        for url in urls:
            content = await self._fetch_one(url, hosts, min(left, MAX_IMAGE_BYTES))
            left -= len(content)
            images.append(base64.b64encode(content).decode())
        return images

    async def _fetch_one(self, url: httpx.URL, hosts: Collection[str], most_bytes: int) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._transport.handle_async_request(_request(url))
            try:
                if response.status_code not in _REDIRECTS:
                    return await _read(response, most_bytes)
                location = response.headers.get("location", "")
            finally:
                await response.aclose()
            url = _permitted(str(url.join(location)), hosts)
        raise Refusal(Reason.IMAGE_NOT_FETCHED)


def _permitted(text: str, hosts: Collection[str]) -> httpx.URL:
    """The URL, if a tenant with these hosts may have it fetched. What is compared is what is connected to."""
    try:
        if len(text) > MAX_URL_CHARACTERS:
            raise Refusal(Reason.FORBIDDEN_IMAGE)
        url = httpx.URL(text)
        named = image_host(url.scheme, url.raw_host.decode("ascii"), url.port)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Refusal(Reason.FORBIDDEN_IMAGE) from None
    if url.scheme not in {"https", "http"} or url.userinfo or not url.host or named not in hosts:
        raise Refusal(Reason.FORBIDDEN_IMAGE)
    return url


def _request(url: httpx.URL) -> httpx.Request:
    timeouts = httpx.Timeout(FETCH_SECONDS, connect=CONNECT_SECONDS).as_dict()
    headers = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "cachegate"}
    return httpx.Request("GET", url, headers=headers, extensions={"timeout": timeouts})


async def _read(response: httpx.Response, most_bytes: int) -> bytes:
    is_encoded = response.headers.get("content-encoding", "identity").strip().lower() != "identity"
    if response.status_code != _OK or is_encoded:
        raise Refusal(Reason.IMAGE_NOT_FETCHED)
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > most_bytes:
            raise Refusal(Reason.IMAGE_NOT_FETCHED)
    if not content:
        raise Refusal(Reason.IMAGE_NOT_FETCHED)
    return bytes(content)
