"""Sends a body that comes from elsewhere, through ASGI, every piece as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.delivery.file_body import disconnected
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Send

    from gateway.model.answers import Streamed


async def send_stream(start: Message, body: Streamed, receive: Receive, send: Send) -> Ending:
    """Send an answer with this body, after the message that starts it. Raises what the stream raises.

    A client that has the announced length has the whole file and may close, so that piece is the last.
    """
    gone = asyncio.ensure_future(disconnected(receive))
    left = body.length
    try:
        await send(start)
        while left != 0 and (piece := await _next_piece(body.pieces, gone)) is not None:
            if left is not None:
                left -= len(piece)
            if gone.done() or not await _is_taken(piece, send, is_last=left == 0):
                return Ending.CLIENT_GONE
            if left == 0:
                return body.ending
        if gone.done():
            return Ending.CLIENT_GONE
        return body.ending if await _is_taken(b"", send, is_last=True) else Ending.CLIENT_GONE
    finally:
        gone.cancel()


async def _next_piece(pieces: AsyncIterator[bytes], gone: asyncio.Future[None]) -> bytes | None:
    """The next piece; None at the end, or once the client has gone: whoever sends may pause for minutes."""
    coming: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(pieces, None))
    try:
        waited: list[asyncio.Future[Any]] = [coming, gone]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait({coming})


async def _is_taken(piece: bytes, send: Send, *, is_last: bool) -> bool:
    """Send a piece; whether the client was still connected."""
    try:
        await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
    except OSError:  # what servers raise when the connection is gone (ASGI 2.4)
        return False
    return True
