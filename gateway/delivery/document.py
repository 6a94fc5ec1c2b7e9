"""Deliver a JSON document about what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.delivery.headers import delivery_headers

if TYPE_CHECKING:
    from starlette.types import Send

    from gateway.model.verdicts import Receipt

_ENCODER = msgspec.json.Encoder()


async def send_document(
    receipt: Receipt, document: Any, *, method: str, trace: bytes, link: str | None, send: Send
) -> None:
    """Send it; HEAD gets the same headers and no body. `link` is the next page, if there is one."""
    body = _ENCODER.encode(document) + b"\n"
    headers = delivery_headers(receipt, content_type=b"application/json", length=len(body), trace=trace)
    if link is not None:
        headers.append((b"link", f'<{link}>; rel="next"'.encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
