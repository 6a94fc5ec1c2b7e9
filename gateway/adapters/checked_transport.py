"""A transport that connects to the address that was judged, in the name that was asked for.

Certificate and Host stay those of the name; what the name leads to is looked up once (`addresses.py`).
"""

from __future__ import annotations

import httpx

from gateway.adapters.addresses import find_addresses

DEFAULT_PORTS = {"http": 80, "https": 443}


class CheckedTransport(httpx.AsyncBaseTransport):
    """Tries the addresses of a host in turn, once every one of them was judged."""

    def __init__(self, inner: httpx.AsyncHTTPTransport, *, may_be_private: bool) -> None:
        self._inner = inner
        self._may_be_private = may_be_private

    async def handle_async_request(self, asked: httpx.Request) -> httpx.Response:
        """The answer. Raises `AddressError` for a host that is not connected to."""
        url = asked.url
        host, port = url.host, url.port or DEFAULT_PORTS[url.scheme]
        addresses = await find_addresses(host, port, may_be_private=self._may_be_private)
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(asked, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_pinned(asked, addresses[-1]))

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._inner.aclose()


def _pinned(asked: httpx.Request, address: str) -> httpx.Request:
    url = asked.url
    extensions = {**asked.extensions, "sni_hostname": url.host}
    pinned = url.copy_with(host=address)
    return httpx.Request(
        asked.method, pinned, headers=asked.headers, stream=asked.stream, extensions=extensions
    )
