"""Sends JSON documents: listings, descriptions, and the engine's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.delivery.headers import delivery_headers
from gateway.delivery.steps import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Send

    from gateway.model.verdicts import Receipt

_ENCODER = msgspec.json.Encoder()


async def send_document(
    receipt: Receipt, document: Any, *, method: str, trace: bytes, link: str | None, send: Send
) -> None:
    """Send a document as JSON; HEAD gets the same headers and no body. `link` is the next page, if any."""
    more = [] if link is None else [(b"link", f'<{link}>; rel="next"'.encode())]
    body = _ENCODER.encode(document) + b"\n"
    await send_answer(receipt, body, method=method, trace=trace, send=send, more=more)


async def send_answer(
    receipt: Receipt,
    body: bytes,
    *,
    method: str,
    trace: bytes,
    send: Send,
    more: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send JSON that is already encoded. `more` are headers that only this answer has."""
    headers = delivery_headers(receipt, content_type=b"application/json", length=len(body), trace=trace)
    await send({"type": "http.response.start", "status": 200, "headers": [*headers, *more]})
    left = b"" if method == "HEAD" else body
    while len(left) > READ_BYTES:  # no message is longer: this bounds what is queued for a client
        await send({"type": "http.response.body", "body": left[:READ_BYTES], "more_body": True})
        left = left[READ_BYTES:]
    await send({"type": "http.response.body", "body": left})
