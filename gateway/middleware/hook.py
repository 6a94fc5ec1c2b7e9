"""Reads the bounded body of a webhook, and sends the answer to one that was accepted.

A hook is authenticated by the signature over its body, so the body has to be read before the sender is known.
Therefore its length (declared by the route) and its time (`BODY_SECONDS`) are bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.middleware.trace import traceparent
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from gateway.model.access import WireRequest

BODY_SECONDS = 5.0


async def read_body(receive: Receive, max_bytes: int) -> bytes:
    """The whole body. Raises `Refusal` for one that is too long, too slow or incomplete."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refusal(Reason.MALFORMED_REQUEST)
                body += message.get("body", b"")
                if len(body) > max_bytes:
                    raise Refusal(Reason.BODY_TOO_LARGE)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise Refusal(Reason.SLOW_REQUEST) from error


async def send_taken(request: WireRequest, document: bytes, send: Send) -> None:
    """Answer a hook that was accepted."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(document)).encode()),
        (b"cache-control", b"no-store"),
        (b"traceparent", traceparent(request.trace_id)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": document})
