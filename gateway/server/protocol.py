"""HTTP/1.1 for one connection, with limits on what a client can make a worker hold before it is authorized.

uvicorn's parser accepts a request line and headers of any size, waits for them without a timeout, and answers
malformed input in plain text. This protocol limits size and time before the application is called, and
answers in the form of every other refusal. After an early refusal nothing more is parsed: the end of the
refused request is unknown, and what follows could be parsed as a request that was never sent (smuggling).

A client that acknowledges nothing is cut by the stall clock of its connection, whichever code wrote the
bytes, and is not read from meanwhile (`stall_clock.py`, `flow.py`).

Requests may be pipelined. A refusal is sent after the answers to earlier requests, because answers go out in
request order. Only a request whose own body broke off is dropped.

Non-goals: the meaning of a path or a header, and limits on bodies. Those are the application's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.model.limits import MAX_TARGET_BYTES
from gateway.problems import UNRECORDED
from gateway.server.connection import Connection
from gateway.server.early_refusal import EarlyRefusal
from gateway.server.flow import HIGH_WATER_BYTES, Flow
from gateway.server.head_budget import HeadBudget
from gateway.server.request_form import BODY_FIELDS, is_http_as_we_know_it, is_unwanted_upgrade
from gateway.server.stall_clock import STALL_SECONDS, StallClock

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MAX_PIPELINED = 128  # requests waiting; one read of the socket can hold thousands
HEAD_SECONDS = 10.0  # from a request's first byte, and from the connection, to the end of the headers
LINGER_SECONDS = 1.0  # closing with unread bytes resets the connection, and the answer may be lost with it


def _do_nothing() -> None:
    return


class _RefusedError(Exception):
    """Aborts the parser from within one of its callbacks."""


class GatewayHttpProtocol(HttpToolsProtocol):
    """One connection of any listener. `on_lost` is called once, when the connection is over."""

    stall_seconds = STALL_SECONDS
    on_lost: Callable[[], None] = staticmethod(_do_nothing)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False  # uvicorn's access log would write query strings down
        self._refusal: EarlyRefusal | None = None
        self._refusal_answer: bytes | None = None
        self.is_made = False  # set once the connection is set up, its TLS handshake included
        self._connection: Connection | None = None
        self._stall_clock: StallClock | None = None
        self._unanswered: deque[RequestResponseCycle] = deque()  # in request order
        self._has_stopped_parsing = False
        self._head = HeadBudget()
        self._has_body = self._is_answered = self._is_in_message = False
        self._timer: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the timer for the first request: a connection that stays silent is closed."""
        super().connection_made(transport)
        self.is_made = True
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)  # the default over TLS is higher
        self.flow = Flow(transport, self.pipeline)
        self._connection = Connection(transport, self.flow)
        self._stall_clock = StallClock(
            self._connection, self.loop, self.stall_seconds, on_stall=self.report_stall
        )
        self._stall_clock.start()
        self.timeout_keep_alive_task = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, whichever side closed the connection."""
        if self._connection is not None and (exc is not None or self._owes_an_answer):
            self._connection.was_cut_short = True
        if self._stall_clock is not None:
            self._stall_clock.stop()
        self._stop_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        for cycle in self._unanswered:  # uvicorn notifies only the newest one, which may still be waiting
            cycle.disconnected = True
            cycle.message_event.set()
        self.on_lost()

    def resume_writing(self) -> None:
        """Resume writing, and reading as well, once the client has taken some."""
        super().resume_writing()
        self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; abort one whose client takes nothing, as it would never close."""
        if self._connection is not None and self.transport.get_write_buffer_size():
            self._connection.abort()
        super().timeout_keep_alive_handler()

    def data_received(self, data: bytes) -> None:
        """Parse within the limits. Nothing is parsed after a refusal."""
        if self._has_stopped_parsing:
            return
        self._unset_keepalive_if_required()
        self._head.begin_feed()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._has_stopped_parsing = True  # the request itself was accepted; see on_headers_complete
        except httptools.HttpParserError:
            self._refuse(self._refusal or EarlyRefusal.MALFORMED_REQUEST)
        else:
            self._watch_head(len(data))

    @property
    def _owes_an_answer(self) -> bool:
        return bool(self._unanswered)

    def _watch_head(self, fed_bytes: int) -> None:
        """Limit what the parser may hold of an unfinished header, and for how long."""
        if not self._head.has_room_after(fed_bytes):
            self._refuse(EarlyRefusal.HEADERS_TOO_LARGE)
            return
        # A request is unfinished and no answer is being worked on: the client has to send, within the limit.
        if self._timer is None and self.timeout_keep_alive_task is None and not self._owes_an_answer:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._on_timer)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a new request. Its scope is made once it is known to need one."""
        self.url, self.headers = b"", []
        self.expect_100_continue = self._has_body = self._is_answered = False
        self._is_in_message = True
        self._head.begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target.

        A fragment is no part of it (RFC 9112, 3.2). The parser would drop it and serve the rest; a proxy
        in front of us may have read the target differently.
        """
        if b"#" in url:
            self._leave_parser(EarlyRefusal.MALFORMED_REQUEST)
        if len(self.url) + len(url) > MAX_TARGET_BYTES:
            self._leave_parser(EarlyRefusal.PATH_TOO_LONG)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which must not be added to the headers that were decided on."""
        if not self._head.has_room_for(name, value, len(self.headers)):
            self._leave_parser(EarlyRefusal.HEADERS_TOO_LARGE)
        if self._head.is_open:
            super().on_header(name, value)
            self._has_body = self._has_body or self.headers[-1][0] in BODY_FIELDS

    def on_headers_complete(self) -> None:
        """Refuse the request, or answer it at once, or hand it to the application."""
        self._head.is_open = False
        self._stop_timer()
        version = self.parser.get_http_version()
        if len(self.pipeline) >= MAX_PIPELINED or not is_http_as_we_know_it(version, self.headers):
            self._leave_parser(EarlyRefusal.MALFORMED_REQUEST)
        is_upgrade = self.parser.should_upgrade()
        if is_upgrade and is_unwanted_upgrade(self.parser.get_method(), self.headers):
            self._leave_parser(EarlyRefusal.MALFORMED_REQUEST)
        if not is_upgrade and not self._has_body and self.answer_request():
            self._is_answered = True
            return
        self._open_scope()
        super().on_headers_complete()
        self._unanswered.append(self.cycle)
        if is_upgrade:
            self.cycle.keep_alive = False

    def _open_scope(self) -> None:
        """Have uvicorn make the scope, which it would have made at the first byte."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = headers
        if self._connection is not None:
            self.scope.update(self._connection.for_the_guard)  # type: ignore[typeddict-item] # not in ASGI

    def answer_request(self) -> bool:
        """Answer a request without a body now; false when the application has to. Here always false."""
        return False

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._is_in_message = False
        self._stop_timer()
        if not self._is_answered:
            super().on_message_complete()

    def note_answered_at_once(self) -> None:
        """Finish an answer from memory, which was never added to the unanswered requests."""
        super().on_response_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request; after the last one, send the refusal that waited for it."""
        self._unanswered.popleft()
        if self._refusal_answer is not None and not self.pipeline:
            self._send_refusal()
        else:
            super().on_response_complete()

    # Refusals

    def _leave_parser(self, refusal: EarlyRefusal) -> None:
        self._refusal = refusal
        raise _RefusedError

    def _refuse(self, refusal: EarlyRefusal) -> None:
        """Record the refusal, send it now or after the earlier answers, and parse nothing more."""
        record_id = self.report_refusal(refusal, self.client[0] if self.client else "local")
        self._refusal = refusal
        self._refusal_answer = refusal.answer(record_id or UNRECORDED)
        self._has_stopped_parsing = True
        self._stop_timer()
        if not self._owes_an_answer:
            self._send_refusal()
        elif self.cycle.more_body and not self._head.is_open:
            self._give_up()
        # Otherwise on_response_complete sends it.

    def report_refusal(self, _refusal: EarlyRefusal, _peer: str) -> str | None:
        """Report a refusal; return the id of its record, if one was made. Here nothing is reported."""
        return None

    def report_stall(self) -> None:
        """Report that the client took nothing for too long and is about to be cut. Here it does nothing."""

    def _give_up(self) -> None:
        """Drop the newest request, whose body broke off. Earlier requests still get their answers."""
        if self.pipeline:
            self.pipeline.popleft()
            self._unanswered.pop()
            return
        cycle = self.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.close()
        else:
            self._send_refusal()

    def _send_refusal(self) -> None:
        refusal, answer = self._refusal, self._refusal_answer
        if refusal is None or answer is None or self.transport.is_closing():
            return
        headers = (b"%b: %b\r\n" % header for header in self.server_state.default_headers)
        self.transport.write(b"".join((STATUS_LINE[refusal.status], *headers, answer)))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()  # to notice when the client closes
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _on_timer(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._head.is_open:
            self._refuse(EarlyRefusal.SLOW_REQUEST)
        else:
            self.transport.close()  # only blank lines came, or the rest of a body that is not needed

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
