"""Checks the form of a request: HTTP version, Host header, upgrades. None of it decides an access."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BODY_FIELDS = frozenset({b"content-length", b"transfer-encoding"})
NO_BODY = (b"content-length", b"0")
"""How Envoy and others say that there is none."""


def is_http_as_we_know_it(version: str, hosts: int) -> bool:
    """Whether it is HTTP/1.0 or 1.1, with exactly one Host as RFC 9112 demands (3.2; optional in 1.0)."""
    return version == "1.1" and hosts == 1 or version == "1.0" and hosts <= 1  # noqa: RUF021


def is_unwanted_upgrade(method: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an upgrade is refused.

    WebSockets and tunnels are. A server may ignore any other `Upgrade`, and some clients send `h2c` by
    default. But the parser stops reading at such a request, so it is served only without a body, and as
    the last one of its connection.
    """
    names = dict(headers)
    is_websocket = b"websocket" in names.get(b"upgrade", b"").lower()
    return method == b"CONNECT" or is_websocket or not BODY_FIELDS.isdisjoint(names)
