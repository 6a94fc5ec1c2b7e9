"""An httpx transport that connects only to addresses that `addresses.py` has checked.

The host name is resolved once and the connection goes to the resolved address. The Host header, SNI and
certificate verification keep using the name.
"""

from __future__ import annotations

import httpx

from gateway.adapters.addresses import find_addresses

DEFAULT_PORTS = {"http": 80, "https": 443}


class CheckedTransport(httpx.AsyncBaseTransport):
    """Tries the addresses of a host in order, after all of them were checked."""

    def __init__(self, inner: httpx.AsyncHTTPTransport, *, may_be_private: bool) -> None:
        self._inner = inner
        self._may_be_private = may_be_private

    async def handle_async_request(self, asked: httpx.Request) -> httpx.Response:
        """Send the request and return the response. Raises `AddressError` for a forbidden host."""
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
        """Close the connections."""
        await self._inner.aclose()


def _pinned(asked: httpx.Request, address: str) -> httpx.Request:
    url = asked.url
    extensions = {**asked.extensions, "sni_hostname": url.host}
    pinned = url.copy_with(host=address)
    return httpx.Request(
        asked.method, pinned, headers=asked.headers, stream=asked.stream, extensions=extensions
    )
