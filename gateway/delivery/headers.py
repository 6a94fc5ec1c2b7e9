"""The headers that every delivered answer has, and the request headers that delivery reads.

A request's headers select only the form in which an admitted answer is sent. They never decide whether it
is sent (I3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.verdicts import Receipt

Headers = list[tuple[bytes, bytes]]

REVALIDATED = (
    b"private, no-cache"  # the caller's own cache may store it, but has to revalidate it before each use
)

_READ = frozenset({b"if-match", b"if-none-match", b"if-range", b"range", b"want-repr-digest"})


def delivery_headers(receipt: Receipt, *, content_type: bytes, length: int, trace: bytes) -> Headers:
    """Headers of an answer without a validator: it could not be revalidated, so no cache may store it."""
    caller = caller_headers(receipt, trace, cache_control=b"no-store")
    return [*content_headers(content_type, length), *caller]


def content_headers(content_type: bytes, length: int) -> Headers:
    """The headers that describe the body."""
    return [(b"content-type", content_type), (b"content-length", str(length).encode())]


def caller_headers(receipt: Receipt, trace: bytes, *, cache_control: bytes = REVALIDATED) -> Headers:
    """The headers that bind an answer to one caller and one audit record."""
    return [
        (b"cache-control", cache_control),
        (b"vary", b"authorization, x-api-key"),
        (b"x-content-type-options", b"nosniff"),
        (b"cachegate-record", receipt.record_id.encode()),
        (b"traceparent", trace),
    ]


def asked_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """The request fields that delivery reads, each with the values of all its lines."""
    asked: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _READ:
            asked.setdefault(name, []).append(value.strip(b" \t"))
    return asked
