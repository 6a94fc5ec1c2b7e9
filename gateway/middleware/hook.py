"""What the guard's middleware does with a hook: read its bounded body, have it judged, answer.

A hook is decided by the signature over its body, so there is a body to be read before anything is known
of who sent it: as long as was declared, and no longer than a moment.
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
    """The whole body. Raises `Refusal` for one that is longer, or late, or broke off."""
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
    """Say that a hook was taken."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(document)).encode()),
        (b"cache-control", b"no-store"),
        (b"traceparent", traceparent(request.trace_id)),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": document})
