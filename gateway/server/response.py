"""One response: uvicorn's cycle, which can also send a stretch of a file without touching it.

The message is the ASGI extension `http.response.zerocopysend`, with `offset` and `count` always
given, because a descriptor's own position would be shared by all who send from it:

    {"type": "http.response.zerocopysend", "file": 7, "offset": 0, "count": 1048576, "more_body": True}

What is put under two more keys is asked for each step of the message: `cachegate.watch` whether the
transfer may go on (`file_span.Watch`), and `cachegate.verify_unchanged` is called right before the kernel
gets the step, and once more after the last. What they raise ends the message, and nothing closes the body.

It counts towards `content-length` as a body does, and the two kinds may follow each other. While a
client takes nothing, `send` waits; when the client is gone it raises `OSError`, as ASGI 2.4 has it.

`sent_bytes` is what was handed to the kernel or the transport so far, also when a message was cut
in its middle: what an outcome record says must not be less than what a client may have got.
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
    """The answer to one request that went to the application."""

    def __init__(self, cycle: RequestResponseCycle, sender: FileSender) -> None:
        self._cycle = cycle
        self._sender = sender
        self._sent_bytes = 0

    def sent_bytes(self) -> int:
        """How many bytes of the body went out."""
        return self._sent_bytes

    def of(self, app: App) -> App:
        """The application, sending through this."""
        return lambda scope, receive, _: app(scope, receive, self.send)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """ASGI's `send`."""
        cycle = self._cycle
        if message["type"] != ZERO_COPY:
            await cycle.send(message)  # type: ignore[arg-type]  # one of ASGI's own, or uvicorn says so
            if not cycle.disconnected:  # else uvicorn has dropped it
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
            cycle.disconnected = True  # uvicorn hears of it a moment later, and would call it a defect
            cycle.transport.close()
            raise
        cycle.expected_content_length -= message["count"]
        rest = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        await cycle.send(rest)  # type: ignore[arg-type]  # it is one

    def _looks(self, message: MutableMapping[str, Any]) -> Looks:
        return Looks(on_sent=self._count, verify=message.get(VERIFY, at_ease), watch=message.get(WATCH))

    def _count(self, sent: int) -> None:
        self._sent_bytes += sent
