"""HTTP/1.1 with bounds: what one client can make a worker hold before anything was decided.

uvicorn's parser takes a request line and headers of any size, waits for them for ever, and answers
garbage in plain text. This protocol puts bounds on all three, ahead of the application, and answers
in the shape that every other refusal has. After an early refusal nothing more is read as HTTP: where
a request ended is unknown then, and what follows could be anybody's idea of the next one.

Requests may be pipelined. A refusal then waits for the answers that are still owed, because
answers go out in the order of the questions; only a request whose own body broke off is given up.

Not here: what a path or a header means, and any limit on bodies. Those are for the application.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.server.early_refusal import EarlyRefusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MAX_PIPELINED = 128  # requests waiting their turn; one read of the socket can hold thousands
HEAD_SECONDS = 10.0  # from the first byte of a request, and from the connection, to the end of the headers
LINGER_SECONDS = 1.0  # closing on unread bytes resets the connection, and the answer may get lost with it

_DROP_WHAT_IS_UNSENT = struct.pack("ii", 1, 0)  # linger on, for no time: closing is a reset
_HEADER_OVERHEAD_BYTES = 4  # the colon, a blank and the line end
_MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024


class _RefusedError(Exception):
    """Leaves the parser from within one of its callbacks."""


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection. `protocol_reporting_to` makes the class that tells somebody about refusals."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # uvicorn's access log would write query strings down
        self._refusal: EarlyRefusal | None = None
        self._is_deaf = False
        self._is_in_head = False
        self._head_began_in_this_feed = False
        self._head_bytes = 0
        self._header_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _for_the_guard(self) -> dict[str, Any]:
        """What the guard needs of a connection that ASGI has no words for (`middleware/guard.py`)."""
        return {"cachegate.drained": self._drained, "cachegate.abort": self._abort}

    async def _drained(self) -> None:
        """Return once earlier answers on this connection left room for the next one's first byte."""
        if self.flow.write_paused:
            await self.flow.drain()

    def _abort(self) -> None:
        """Break the connection off. A plain close leaves the kernel megabytes to send on to a slow reader."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError, ValueError):  # it is gone already; uvloop calls that a bad value
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_WHAT_IS_UNSENT)
        self.transport.abort()

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock for the first request: a connection that stays silent is closed."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks, whichever side ended it."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, within bounds. Nothing is parsed after a refusal."""
        if self._is_deaf:
            return
        self._unset_keepalive_if_required()
        self._head_began_in_this_feed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # the request was taken as it stands; see on_headers_complete
        except httptools.HttpParserError:
            self._refuse(self._refusal or EarlyRefusal.MALFORMED_REQUEST)
        else:
            self._watch_head(len(data))

    @property
    def _owes_an_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]  # uvicorn's annotation omits the None it starts with

    def _watch_head(self, fed_bytes: int) -> None:
        """Bound what the parser itself holds of an unfinished header, and for how long."""
        if self._is_in_head and not self._head_began_in_this_feed:
            self._head_bytes += fed_bytes
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(EarlyRefusal.HEADERS_TOO_LARGE)
                return
        # Something is unfinished and no answer is being worked on: the client's turn, and its time.
        if self._timer is None and self.timeout_keep_alive_task is None and not self._owes_an_answer:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._on_timer)

    # What the parser finds

    def on_message_begin(self) -> None:
        """A new request's first byte."""
        super().on_message_begin()
        self.scope.update(self._for_the_guard)  # type: ignore[typeddict-item] # not of ASGI: the guard's own
        self._is_in_head = self._head_began_in_this_feed = True
        self._head_bytes = self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if len(self.url) + len(url) > MAX_TARGET_BYTES:
            self._leave_parser(EarlyRefusal.PATH_TOO_LONG)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which must not join the headers that were decided on."""
        self._header_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADER_COUNT:
            self._leave_parser(EarlyRefusal.HEADERS_TOO_LARGE)
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless it asks for another protocol.

        WebSockets and tunnels are refused. Any other `Upgrade` may be ignored by a server, and some
        clients send `h2c` as a matter of course; but the parser stops reading at such a request, so
        it is served only without a body, and as the last one of its connection.
        """
        self._is_in_head = False
        self._stop_timer()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._leave_parser(EarlyRefusal.MALFORMED_REQUEST)
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade:
            names = dict(self.headers)
            if (
                self.parser.get_method() == b"CONNECT"
                or b"websocket" in names.get(b"upgrade", b"").lower()
                or b"content-length" in names
                or b"transfer-encoding" in names
            ):
                self._leave_parser(EarlyRefusal.MALFORMED_REQUEST)
        super().on_headers_complete()
        if is_upgrade:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The request is all there."""
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """After the last answer that was owed, the refusal that waited for it."""
        if self._refusal is not None and not self.pipeline:
            self._send_refusal(self._refusal)
        else:
            super().on_response_complete()

    # Refusals

    def _leave_parser(self, refusal: EarlyRefusal) -> None:
        self._refusal = refusal
        raise _RefusedError

    def _refuse(self, refusal: EarlyRefusal) -> None:
        """Answer now, or after the answers that are still owed, and hear nothing more."""
        self._refusal = refusal
        self._is_deaf = True
        self._stop_timer()
        if not self._owes_an_answer:
            self._send_refusal(refusal)
        elif self.cycle.more_body and not self._is_in_head:
            self._give_up(refusal)
        # Otherwise on_response_complete sends it.
        self.report_refusal(refusal, self.client[0] if self.client else "local")

    def report_refusal(self, refusal: EarlyRefusal, peer: str) -> None:
        """Tell somebody; here, nobody."""

    def _give_up(self, refusal: EarlyRefusal) -> None:
        """The newest request broke off in its body. The ones before it still get their answers."""
        cycle = self.cycle
        if self.pipeline:
            self.pipeline.popleft()
            return
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: EarlyRefusal) -> None:
        if self.transport.is_closing():
            return
        headers = (b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        self.transport.write(b"".join((STATUS_LINE[refusal.status], *headers, refusal.answer)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()  # to see the client's end of it
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _on_timer(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._is_in_head:
            self._refuse(EarlyRefusal.SLOW_REQUEST)
        else:
            self.transport.close()  # blank lines, or the rest of a body that nobody waits for

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol_reporting_to(on_refused: Callable[[EarlyRefusal, str], None]) -> type[GatewayHttpProtocol]:
    """The protocol, reporting each early refusal with the peer's address. `on_refused` does not raise."""

    class ReportingProtocol(GatewayHttpProtocol):
        """The protocol of one worker."""

        def report_refusal(self, refusal: EarlyRefusal, peer: str) -> None:
            """Count and record it."""
            on_refused(refusal, peer)

    return ReportingProtocol
