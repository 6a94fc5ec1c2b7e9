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

REVALIDATED = (
    b"private, no-cache"  # the caller's own cache may keep it, and asks each time whether it may be used
)

_READ = frozenset({b"if-match", b"if-none-match", b"if-range", b"range", b"want-repr-digest"})


def delivery_headers(receipt: Receipt, *, content_type: bytes, length: int, trace: bytes) -> Headers:
    """An answer without a validator: no cache could ask whether it still holds, so none may keep it."""
    caller = caller_headers(receipt, trace, cache_control=b"no-store")
    return [*content_headers(content_type, length), *caller]


def content_headers(content_type: bytes, length: int) -> Headers:
    """What the body is."""
    return [(b"content-type", content_type), (b"content-length", str(length).encode())]


def caller_headers(receipt: Receipt, trace: bytes, *, cache_control: bytes = REVALIDATED) -> Headers:
    """Whose answer it is: of one caller, under one record."""
    return [
        (b"cache-control", cache_control),
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
