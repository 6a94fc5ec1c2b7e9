"""The protocol of connections on the public listener: `GatewayHttpProtocol` with two faster ways to answer.

Both are used only where the answer is the same as without them. A file is sent by `sendfile` where the
connection is plain (`response.py`); over TLS the extension is not offered, and the application sends chunks.
And a request that can be answered from memory is answered from within the parser, or before it: no scope,
no task, no application. The object that can do that is passed in as `at_once`. This protocol only decides
when it may be asked: no earlier answer is pending, the client takes what is written, and the connection
stays open. Everything else goes to the application.
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

MAX_REPEATED_BYTES = 4096  # longest request that is remembered by its bytes
_METHODS = frozenset({b"GET", b"HEAD"})
_HEAD_ENDS = b"\r\n\r\n"


class AtOnce(Protocol):
    """Answers from memory. Neither method raises; when it returns False, nothing was written."""

    def answer(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        peer: str | None,
        write: Write,
        raw_request: bytes | None,
    ) -> bool:
        """Answer a request without a body. `raw_request` is all of it, if it came in one read."""

    def promise(self, raw_request: bytes, peer: str | None, to: ContentProtocol) -> bool:
        """Whether the request is known by its bytes; if so it is answered at the end of this loop iteration.

        The same bytes were parsed before, and the result of parsing depends on nothing else.
        """

    def keep(self) -> None:
        """Answer all promised requests now. Each ends in `note_answered` or `take_long_way`."""


class ContentProtocol(GatewayHttpProtocol):
    """One connection. `content_protocol` makes the subclass that a worker uses."""

    at_once: AtOnce | None = None
    send_queue = SendQueue()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_at_start = True
        self.is_promised = False
        self._peer: str | None = None
        self._raw_request: bytes | None = None
        self._answered_at = float("-inf")
        self._own_headers: Headers | None = None
        self._head_start = b""
        self._sender: FileSender | None = None
        self._is_plain = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Note whether the connection is plain, so that the kernel can send files on it."""
        super().connection_made(transport)
        self._is_plain = self.scheme == "http"
        self._peer = self.client[0] if self.client else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the duplicate of the socket."""
        super().connection_lost(exc)
        if self._sender is not None:
            self._sender.close()

    # Requests that the application answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_plain:
            if self._sender is None:
                self._sender = FileSender(self.transport, self.loop, self.send_queue)
            response = Response(cycle, self._sender)
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]  # not only ASGI's own members
            scope["extensions"] = {ZERO_COPY: {LOOKS: True}}
            scope[SENT] = response.sent_bytes
            app = response.of(app)
        super()._start_asgi_task(cycle, app)

    # Requests that are answered from memory

    def data_received(self, data: bytes) -> None:
        """Answer a request that is known by its bytes without parsing it; parse everything else."""
        if self.at_once is None:
            super().data_received(data)
            return
        if self.is_promised:
            self.at_once.keep()  # answers go out in request order
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
        """Count a promised request that was answered."""
        self.is_promised = False
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()

    def take_long_way(self, raw_request: bytes) -> None:
        """Parse a promised request that could not be answered from memory, as if it came now."""
        self.is_promised = False
        if not self.transport.is_closing():
            self._raw_request = raw_request
            self._parse(raw_request)

    def shutdown(self) -> None:
        """Answer what was promised, then shut down as uvicorn does."""
        if self.is_promised and self.at_once is not None:
            self.at_once.keep()
        super().shutdown()

    def answer_request(self) -> bool:
        """Answer from memory, if this request may be and the answer is there."""
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
        """Whether an answer written now is the one the client expects next, and can be written at once."""
        return not (
            self._owes_an_answer
            or self._has_stopped_parsing
            or self.pipeline
            or self.flow.write_paused
            or self.transport.is_closing()
        )

    def write_now(self, head: bytes, body: bytes) -> None:
        """Write the whole answer in one system call: status line, server headers, `head`, `body`."""
        own = self.server_state.default_headers
        if own is not self._own_headers:  # a new list each second, for the date in it
            self._own_headers = own
            self._head_start = STATUS_LINE[200] + b"".join([b"%b: %b\r\n" % header for header in own])
        self.transport.write(b"%b%b%b" % (self._head_start, head, body))

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection. Answers from memory do not restart the timer, so compute what is left."""
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()


def _is_one_head(data: bytes) -> bool:
    """Whether this can be exactly one whole request without a body."""
    return len(data) <= MAX_REPEATED_BYTES and data.find(_HEAD_ENDS) == len(data) - len(_HEAD_ENDS)


def content_protocol(
    *,
    on_refused: Callable[[EarlyRefusal, str], str | None] | None = None,
    on_stall: Callable[[], None] | None = None,
    at_once: AtOnce | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> type[ContentProtocol]:
    """The protocol class of one worker. Neither `on_refused` nor `on_stall` raises."""
    members: dict[str, Any] = {"at_once": at_once, "send_queue": SendQueue(), "stall_seconds": stall_seconds}
    if on_refused is not None:
        members["report_refusal"] = staticmethod(on_refused)
    if on_stall is not None:
        members["report_stall"] = staticmethod(on_stall)
    return type("WorkerProtocol", (ContentProtocol,), members)
