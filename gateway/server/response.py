"""Sends one ASGI response: uvicorn's, extended by sending a byte range of a file with `sendfile`.

The message is the ASGI extension `http.response.zerocopysend`. `offset` and `count` must always be given,
because a descriptor's own position would be shared by all that send from it:

    {"type": "http.response.zerocopysend", "file": 7, "offset": 0, "count": 1048576, "more_body": True}

Two more keys are read, and used before each step of the message: `cachegate.watch` tells whether the
transfer may go on (`file_span.Watch`), and `cachegate.verify_unchanged` is called right before each system
call, and once more after the last. What they raise ends the message, and the body stays incomplete.

The message counts towards `content-length` as a body does, and the two kinds may follow each other. While
the client takes nothing, `send` waits; when the client is gone, it raises `OSError` (ASGI 2.4).

`sent_bytes` is what was given to the kernel or the transport so far, also when a message was cut in its
middle: an outcome record must not state less than a client may have received.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.model.extensions import VERIFY, WATCH, ZERO_COPY
from gateway.server.file_span import Looks, at_ease

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.server.file_sender import FileSender

    App = Callable[[Any, Any, Any], Awaitable[None]]


class Response:
    """The answer to one request that the application handles."""

    def __init__(self, cycle: RequestResponseCycle, sender: FileSender) -> None:
        self._cycle = cycle
        self._sender = sender
        self._sent_bytes = 0

    def sent_bytes(self) -> int:
        """How many bytes of the body were sent."""
        return self._sent_bytes

    def of(self, app: App) -> App:
        """The application, wrapped so that it sends through this response."""
        return lambda scope, receive, _: app(scope, receive, self.send)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's `send`."""
        cycle = self._cycle
        if message["type"] != ZERO_COPY:
            await cycle.send(message)  # type: ignore[arg-type]  # one of ASGI's own, or uvicorn says so
            if not cycle.disconnected:  # otherwise uvicorn has dropped the message
                self._sent_bytes += len(message.get("body", b""))
            return
        if cycle.disconnected:
            raise ConnectionResetError  # uvicorn has dropped the head as well
        if not cycle.response_started or cycle.response_complete or cycle.chunked_encoding is not False:
            raise RuntimeError("a file is sent within a response whose content-length is known")
        if message["count"] > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        try:
            await self._sender.send(
                message["file"], message["offset"], message["count"], self._looks(message)
            )
            if message.get("more_body", False):
                await self._sender.give_way()
        except (ConnectionError, TimeoutError):
            cycle.disconnected = True  # uvicorn notices a moment later, and would log it as an error
            cycle.transport.close()
            raise
        cycle.expected_content_length -= message["count"]
        rest = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        await cycle.send(rest)  # type: ignore[arg-type]  # it is a valid ASGI message

    def _looks(self, message: MutableMapping[str, Any]) -> Looks:
        return Looks(on_sent=self._count, verify=message.get(VERIFY, at_ease), watch=message.get(WATCH))

    def _count(self, sent: int) -> None:
        self._sent_bytes += sent
