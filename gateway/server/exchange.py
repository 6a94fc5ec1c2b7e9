"""One request that the application answers through ASGI, and its answer.

`run` calls the application. `receive` gives it the body that the connection passes in, and `http.disconnect`
once the client is gone or the answer complete. `send` writes the answer: with the application's
content-length, in chunks without one, or until the connection closes for a client of HTTP/1.0. A header that
could begin another one is refused (response splitting), and so is a body that is not as long as announced.
A head whose message says `cachegate.body_follows` is written together with the first piece of the body.

On a plain connection, `send` takes byte ranges of files as well, which the kernel sends by itself. The
message is the ASGI extension `http.response.zerocopysend`. `offset` and `count` must always be given, because
a descriptor's own position would be shared by all that send from it:

    {"type": "http.response.zerocopysend", "file": 7, "offset": 0, "count": 1048576, "more_body": True}

Two more keys are read, and used before each step of the message: `cachegate.watch` tells whether the
transfer may go on (`file_span.Watch`), and `cachegate.verify_unchanged` is called right before each system
call, and once more after the last. What they raise ends the message, and the body stays incomplete.

The message counts towards `content-length` as a body does, and the two kinds may follow each other. While
the client takes nothing, `send` waits. When the client is gone, a range of a file raises `OSError` (ASGI
2.4), and other messages are dropped.

`sent_bytes` is what was given to the kernel or the transport so far, also when a message was cut in its
middle: an outcome record must not state less than a client may have received.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Protocol

from gateway.model.extensions import BODY_FOLLOWS, LOOKS, SENT, VERIFY, WATCH, ZERO_COPY
from gateway.server.file_span import RangeCallbacks, do_nothing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from gateway.server.file_sender import FileSender
    from gateway.server.flow import Flow

    App = Callable[[Any, Any, Any], Awaitable[None]]
    Message = MutableMapping[str, Any]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_NEVER_IN_A_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_NEVER_IN_A_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_WITHOUT_A_BODY = frozenset({204, 304})
_FAILED_BODY = b"Internal Server Error"
_FAILED_HEADERS = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", b"%d" % len(_FAILED_BODY)),
    (b"connection", b"close"),
)

logger = logging.getLogger(__name__)


class ConnectionOfExchange(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    flow: Flow
    sender: FileSender | None  # where the kernel can send files: on a plain connection

    def head_start(self, status: int) -> bytes:
        """The status line and the server's own headers."""

    @property
    def is_last_answer(self) -> bool:
        """Whether the connection closes after the current answer, because the server stops."""

    def end_exchange(self, exchange: Exchange) -> None:
        """Note that the answer is complete."""


class Exchange:
    """One request and its answer. `feed` and `end_body` are called as the body arrives."""

    __slots__ = (
        "_awaits_continue",
        "_body",
        "_connection",
        "_has_no_body",
        "_head",
        "_is_chunked",
        "_is_complete",
        "_is_disconnected",
        "_is_head",
        "_left_bytes",
        "_may_be_chunked",
        "_more_body",
        "_news",
        "_scope",
        "_sent_bytes",
        "is_started",
        "keep_alive",
    )

    def __init__(
        self, scope: dict[str, Any], connection: ConnectionOfExchange, *, keep_alive: bool, expects: bool
    ) -> None:
        self._scope: dict[str, Any] | None = scope  # until it runs: a scope refers to its exchange
        self._is_head = scope["method"] == "HEAD"
        self._may_be_chunked = scope["http_version"] == "1.1"
        self._connection = connection
        self.keep_alive = keep_alive  # whether the connection stays open after the answer
        # The request
        self._awaits_continue = expects
        self._body = bytearray()
        self._more_body = True
        self._news = (
            asyncio.Event()
        )  # something for `receive`: a piece of the body, its end, the end of it all
        self._is_disconnected = False
        # The answer
        self.is_started = False
        self._is_complete = False
        self._is_chunked = self._has_no_body = False
        self._head = b""  # what waits for the body, to be written with it
        self._left_bytes: int | None = None  # of the announced length; None where none is announced
        self._sent_bytes = 0
        if connection.sender is not None:
            scope["extensions"] = {ZERO_COPY: {LOOKS: True}}
            scope[SENT] = self.sent_bytes

    def sent_bytes(self) -> int:
        """How many bytes of the answer's body were sent."""
        return self._sent_bytes

    # The connection

    def feed(self, piece: bytes) -> int:
        """Add a piece of the request's body; return how many bytes wait for the application."""
        if not self._is_complete:  # otherwise nobody will read it
            self._body += piece
            self._news.set()
        return len(self._body)

    def end_body(self) -> None:
        """Note that the request is complete."""
        self._more_body = False
        self._news.set()

    def disconnect(self) -> None:
        """Note that no more of the request comes, and no more of the answer can be sent."""
        self._is_disconnected = True
        self._news.set()

    async def run(self, app: App) -> None:
        """Have the application answer. Its errors end here: 500 where nothing was sent, else the close."""
        scope, self._scope = self._scope, None
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            await self._fail()  # the grace limit of a server that stops: no defect
        except BaseException:  # a boundary: no request may end the worker
            logger.exception("Exception in ASGI application")
            await self._fail()
        else:
            if not (self._is_complete or self._is_disconnected):
                logger.error("ASGI application returned without completing its response")
                await self._fail()

    async def _fail(self) -> None:
        if self.is_started:
            if not self._is_complete:
                self._connection.transport.close()
            return
        await self.send({"type": "http.response.start", "status": 500, "headers": _FAILED_HEADERS})
        await self.send({"type": "http.response.body", "body": _FAILED_BODY})

    # ASGI

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        if not (self._is_disconnected or self._is_complete):
            if self._awaits_continue and not self._connection.transport.is_closing():
                self._awaits_continue = False
                self._connection.transport.write(_CONTINUE)
            self._connection.flow.resume_reading()
            await self._news.wait()
            self._news.clear()
        if self._is_disconnected or self._is_complete:
            return {"type": "http.disconnect"}
        body = bytes(self._body)
        self._body.clear()
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        kind = message["type"]
        if kind == ZERO_COPY:
            await self._send_file(message)
            return
        flow = self._connection.flow
        if flow.write_paused and not self._is_disconnected:
            await flow.drain()
        if self._is_disconnected:
            return
        expected = "http.response.body" if self.is_started else "http.response.start"
        if kind != expected or self._is_complete:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        if self.is_started:
            self._send_body(message)
        else:
            self._start(message)

    def _start(self, message: Message) -> None:
        connection, status = self._connection, message["status"]
        lines = [connection.head_start(status)]
        is_length_known = says_close = False
        for name, value in message.get("headers", ()):
            if _NEVER_IN_A_NAME.search(name) or _NEVER_IN_A_VALUE.search(value):
                raise RuntimeError("a response header has a character that no header may have")
            field = name.lower()
            if field == b"content-length":
                self._left_bytes, is_length_known = int(value), True
            elif field == b"transfer-encoding":
                self._is_chunked = self._is_chunked or value.lower() == b"chunked"
            elif field == b"connection":
                says_close = says_close or b"close" in [one.strip() for one in value.lower().split(b",")]
            lines += (field, b": ", value, b"\r\n")
        self.keep_alive = self.keep_alive and not says_close and not connection.is_last_answer
        if not (self.keep_alive or says_close):
            lines.append(b"connection: close\r\n")
        self._has_no_body = self._is_head or status in _WITHOUT_A_BODY
        if self._has_no_body or self._is_chunked:
            self._left_bytes = None
        elif not is_length_known and self._may_be_chunked:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self.is_started = True
        self._awaits_continue = False
        head = b"".join(lines)
        if message.get(BODY_FOLLOWS):
            self._head = head
        else:
            connection.transport.write(head)

    def _send_body(self, message: Message) -> None:
        body, more_body = message.get("body", b""), message.get("more_body", False)
        if self._has_no_body:
            body = b""
        self._verify_fits(len(body))
        if self._left_bytes is not None:
            self._left_bytes -= len(body)
        self._sent_bytes += len(body)
        if self._is_chunked and not self._has_no_body:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more_body:
                body += _LAST_CHUNK
        if written := self._head + body:
            self._head = b""
            self._connection.transport.write(written)
        if not more_body:
            self._complete()

    async def _send_file(self, message: Message) -> None:
        if self._is_disconnected:
            raise ConnectionResetError  # the head was dropped as well
        if self._head:
            raise RuntimeError("a head that waits for its body is not followed by a file")
        sender, count, more_body = self._connection.sender, message["count"], message.get("more_body", False)
        if sender is None or self._is_complete or self._left_bytes is None:
            raise RuntimeError("a file is sent within a response whose content-length is known")
        self._verify_fits(count)
        looks = RangeCallbacks(
            on_sent=self._count, verify=message.get(VERIFY, do_nothing), watch=message.get(WATCH)
        )
        try:
            await sender.send(message["file"], message["offset"], count, looks)
            if more_body:
                await sender.give_way()
        except (ConnectionError, TimeoutError):
            self._is_disconnected = True  # the event loop notices a moment later
            self._connection.transport.close()
            raise
        self._left_bytes -= count  # only now: what the kernel cannot send is sent in another way
        if not more_body:
            self._complete()

    def _count(self, sent: int) -> None:
        self._sent_bytes += sent

    def _verify_fits(self, count: int) -> None:
        if self._left_bytes is not None and count > self._left_bytes:
            raise RuntimeError("Response content longer than Content-Length")

    def _complete(self) -> None:
        if self._left_bytes:
            raise RuntimeError("Response content shorter than Content-Length")
        self._is_complete = True
        self._news.set()
        self._connection.end_exchange(self)
