"""Reads the bounded body of a webhook, and makes the answer to one that was accepted.

A hook is authenticated by the signature over its body, so the body has to be read before the sender is known.
Therefore its length (declared by the route) and its time (`BODY_SECONDS`) are bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.delivery.headers import content_headers
from gateway.model.answers import Answer
from gateway.model.errors import Reason, Refusal
from gateway.model.header_block import Headers

if TYPE_CHECKING:
    from starlette.types import Receive

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


def answer_taken(document: bytes) -> Answer:
    """The answer to a hook that was accepted."""
    described = content_headers(b"application/json", len(document))
    return Answer(200, Headers.of(*described, (b"cache-control", b"no-store")), document)
