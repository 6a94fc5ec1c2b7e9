"""A connection of the public listener: what every connection does, and fast ways out.

Two of them, both taken only where the answer is the same as without. A file goes out by `sendfile`
where the connection is plain (`response.py`); over TLS the extension is not offered, and the
application sends chunks. And a request that can be answered now, from memory, is answered from within
the parser, or before it: no scope, no task, no application. Who can do that is handed in as `at_once`;
this protocol decides only when it may be asked: no answer is owed before it, the client takes what is
written, and the connection stays open. Everything else takes the way through the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.model.extensions import LOOKS, SENT, ZERO_COPY
from gateway.server.file_sender import FileSender
from gateway.server.protocol import GatewayHttpProtocol
from gateway.server.response import Response
from gateway.server.send_queue import SendQueue
from gateway.server.stall_clock import STALL_SECONDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.server.early_refusal import EarlyRefusal

    Headers = list[tuple[bytes, bytes]]
    Write = Callable[[bytes, bytes], None]

MAX_REPEATED_BYTES = 4096  # of a request that is worth remembering
_METHODS = frozenset({b"GET", b"HEAD"})
_HEAD_ENDS = b"\r\n\r\n"


class AtOnce(Protocol):
    """Who can answer from memory. Neither method raises; with False nothing was written."""

    def answer(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        peer: str | None,
        write: Write,
        raw_request: bytes | None,
    ) -> bool:
        """Answer a request without a body. `raw_request` is all of it, if it came in one piece."""

    def promise(self, raw_request: bytes, peer: str | None, to: ContentProtocol) -> bool:
        """Whether it is one that is known by its bytes; it is then answered at the end of this turn.

        It was parsed before, and parsing depends on nothing else.
        """

    def keep(self) -> None:
        """Keep all promises now. Each ends in `note_answered` or `take_long_way`."""


class ContentProtocol(GatewayHttpProtocol):
    """One connection. `content_protocol` makes the class of a worker."""

    at_once: AtOnce | None = None
    turns = SendQueue()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_at_start = True
        self.is_promised = False
        self._peer: str | None = None
        self._raw_request: bytes | None = None
        self._answered_at = float("-inf")
        self._own_headers: Headers | None = None
        self._opening = b""
        self._sender: FileSender | None = None
        self._is_plain = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Note whether the kernel can send files on it."""
        super().connection_made(transport)
        self._is_plain = self.scheme == "http"
        self._peer = self.client[0] if self.client else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the duplicate of the socket."""
        super().connection_lost(exc)
        if self._sender is not None:
            self._sender.close()

    # Through the application

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_plain:
            if self._sender is None:
                self._sender = FileSender(self.transport, self.loop, self.turns)
            response = Response(cycle, self._sender)
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]  # not only ASGI's own members
            scope["extensions"] = {ZERO_COPY: {LOOKS: True}}
            scope[SENT] = response.sent_bytes
            app = response.of(app)
        super()._start_asgi_task(cycle, app)

    # Without it

    def data_received(self, data: bytes) -> None:
        """Take what was answered before, byte for byte, as it is; parse everything else."""
        if self.at_once is None:
            super().data_received(data)
            return
        if self.is_promised:
            self.at_once.keep()  # answers go out in the order of the questions
        is_one_request = self._is_at_start and _is_one_head(data) and self.may_answer
        if is_one_request and self.at_once.promise(data, self._peer, self):
            self.is_promised = True
            return
        self._raw_request = data if is_one_request else None
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        super().data_received(data)
        self._is_at_start = not self._is_in_message and data.endswith(_HEAD_ENDS)

    def note_answered(self) -> None:
        """A promise was kept."""
        self.is_promised = False
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()

    def take_long_way(self, raw_request: bytes) -> None:
        """It was not: the request is parsed as if it came now."""
        self.is_promised = False
        if not self.transport.is_closing():
            self._raw_request = raw_request
            self._parse(raw_request)

    def shutdown(self) -> None:
        """Keep what was promised, then as uvicorn."""
        if self.is_promised and self.at_once is not None:
            self.at_once.keep()
        super().shutdown()

    def answer_request(self) -> bool:
        """Answer from memory, if nothing stands in the way of it and the answer is there."""
        method = self.parser.get_method()
        if (
            self.at_once is None
            or method not in _METHODS
            or not self.may_answer
            or not self.parser.should_keep_alive()
            or self.parser.get_http_version() != "1.1"
        ):
            return False
        raw_request = self._raw_request
        if not self.at_once.answer(method, self.url, self.headers, self._peer, self.write_now, raw_request):
            return False
        self.note_answered_at_once()
        return True

    @property
    def may_answer(self) -> bool:
        """Whether an answer that is written now is the one that the client waits for, and is taken."""
        return not (
            self._owes_an_answer
            or self._is_deaf
            or self.pipeline
            or self.flow.write_paused
            or self.transport.is_closing()
        )

    def write_now(self, head: bytes, body: bytes) -> None:
        """The whole answer in one system call: status line, the server's own headers, `head`, `body`."""
        own = self.server_state.default_headers
        if own is not self._own_headers:  # a new list each second, for the date in it
            self._own_headers = own
            self._opening = STATUS_LINE[200] + b"".join([b"%b: %b\r\n" % header for header in own])
        self.transport.write(b"%b%b%b" % (self._opening, head, body))

    def timeout_keep_alive_handler(self) -> None:
        """Close, unless an answer went out meanwhile: those do not set the clock anew each time."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()


def _is_one_head(data: bytes) -> bool:
    """Whether this can be one whole request without a body, and nothing else."""
    return len(data) <= MAX_REPEATED_BYTES and data.find(_HEAD_ENDS) == len(data) - len(_HEAD_ENDS)


def content_protocol(
    *,
    on_refused: Callable[[EarlyRefusal, str], str | None] | None = None,
    on_stall: Callable[[], None] | None = None,
    at_once: AtOnce | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> type[ContentProtocol]:
    """The protocol of one worker. Neither `on_refused` nor `on_stall` raises."""
    members: dict[str, Any] = {"at_once": at_once, "turns": SendQueue(), "stall_seconds": stall_seconds}
    if on_refused is not None:
        members["report_refusal"] = staticmethod(on_refused)
    if on_stall is not None:
        members["report_stall"] = staticmethod(on_stall)
    return type("WorkerProtocol", (ContentProtocol,), members)
