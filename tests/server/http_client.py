"""A plain HTTP client: one request a connection, sent as it is written, and its answer in full."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import zlib
from typing import Any
from urllib.parse import urlsplit

from tests.answer import Answer

SECONDS = 120.0
"""For what takes two on an idle machine; a cold model takes longest."""


def send(
    url: str,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    source: str = "127.0.0.1",
) -> Answer:
    """Send it to the server of `url`; `target` stands in the request line as it is, below its path."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname, parts.port, timeout=SECONDS, source_address=(source, 0)
    )
    try:
        connection.putrequest(method, parts.path + target, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value.encode("latin-1"))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        got = connection.getresponse()
        content = got.read()
        return Answer(got.status, tuple((name.lower(), value) for name, value in got.getheaders()), content)
    finally:
        connection.close()


def bearer(key: str | None) -> tuple[tuple[str, str], ...]:
    return () if key is None else (("Authorization", f"Bearer {key}"),)


def post(
    url: str, target: str, document: Any, key: str | None = None, more: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """Send JSON; the key in a header."""
    headers = (("Content-Type", "application/json"), *bearer(key), *more)
    return send(url, "POST", target, json.dumps(document).encode(), headers)


def picture(seed: int = 0, side: int = 32) -> bytes:
    """A PNG; another for each seed."""
    rows = b"".join(
        b"\0" + bytes((seed * 37 + x * 5 + y * 3 + c * 91) % 256 for x in range(side) for c in range(3))
        for y in range(side)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def encoded(seed: int = 0, side: int = 32) -> str:
    return base64.b64encode(picture(seed, side)).decode()


def image(seed: int = 0, side: int = 32) -> dict[str, str]:
    """A picture as it stands in a body."""
    return {"type": "base64", "value": encoded(seed, side)}
