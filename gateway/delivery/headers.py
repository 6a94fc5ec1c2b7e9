"""The headers that every delivered answer carries, whatever is delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.verdicts import Receipt

Headers = list[tuple[bytes, bytes]]


def delivery_headers(receipt: Receipt, *, content_type: bytes, length: int, trace: bytes) -> Headers:
    """One caller's answer: a shared cache in between must not keep it, and must not guess its type."""
    return [
        (b"content-type", content_type),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"authorization, x-api-key"),
        (b"x-content-type-options", b"nosniff"),
        (b"cachegate-record", receipt.record_id.encode()),
        (b"traceparent", trace),
    ]
