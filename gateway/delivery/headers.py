"""The headers that every delivered answer carries, and the few of a request that delivery reads.

A request's headers decide here only in which form something goes out that was admitted already:
never whether it does (I3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.verdicts import Receipt

Headers = list[tuple[bytes, bytes]]

_READ = frozenset({b"if-match", b"if-none-match", b"if-range", b"range", b"want-repr-digest"})


def delivery_headers(receipt: Receipt, *, content_type: bytes, length: int, trace: bytes) -> Headers:
    """One caller's answer: a shared cache in between must not keep it, and must not guess its type."""
    return [*content_headers(content_type, length), *caller_headers(receipt, trace)]


def content_headers(content_type: bytes, length: int) -> Headers:
    """What the body is."""
    return [(b"content-type", content_type), (b"content-length", str(length).encode())]


def caller_headers(receipt: Receipt, trace: bytes) -> Headers:
    """Whose answer it is: of one caller, under one record."""
    return [
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"authorization, x-api-key"),
        (b"x-content-type-options", b"nosniff"),
        (b"cachegate-record", receipt.record_id.encode()),
        (b"traceparent", trace),
    ]


def asked_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Those of a request's fields that delivery reads, each with the values of all its lines."""
    asked: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READ:
            asked.setdefault(name, []).append(value.strip(b" \t"))
    return asked
