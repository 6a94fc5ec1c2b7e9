"""HTTP/1.1 on one connection: from the bytes of the socket to requests, and their answers in order.

`httptools` parses; this class decides what it may parse, for how long, and who answers.

A request goes to the application through ASGI (`exchange.py`), or is taken by the synchronous core
(`at_once.py`) if it needs nothing from the client but to be answered. One request is answered at a time:
those that follow it on its connection (pipelining) wait in `waiting` and are not answered out of order.

Before a request is authorized, a client can make a worker hold little, and not for long: the request line,
the headers and their number, the time until they are complete, and the requests that wait have limits. What
is not HTTP as we know it, or beyond a limit, is refused here, in the form of every other refusal. After a
refusal nothing more is parsed: the end of the refused request is unknown, and what follows could be parsed as
a request that was never sent (smuggling). The refusal is sent after the answers to earlier requests. Only a
request whose own body broke off is dropped.

A client that acknowledges nothing is cut by the stall clock of its connection, whichever code wrote the
bytes, and is not read from meanwhile (`stall_clock.py`, `flow.py`).

There is one timer. It runs while nothing is being answered, and closes the connection at `_deadline`: when
a kept connection stays idle, or when a request that has begun is not complete. A later deadline is only
noted, and found when the timer fires, so that requests cost no timer.

uvicorn runs the server: it makes this class with `(config, server_state, app_state)`, looks at
`server_state` and calls `shutdown`. Non-goals: the meaning of a path or a header, and limits on bodies. Those
are the application's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

from gateway.model.at_once import Request
from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES
from gateway.problems import UNRECORDED
from gateway.server.connection import Connection, address_of
from gateway.server.early_refusal import EarlyRefusal
from gateway.server.exchange import Exchange
from gateway.server.file_answer import FileAnswer
from gateway.server.file_sender import FileSender
from gateway.server.flow import HIGH_WATER_BYTES, Flow
from gateway.server.head_starts import HeadStarts
from gateway.server.request_form import BODY_FIELDS, NO_BODY, is_http_as_we_know_it, is_unwanted_upgrade
from gateway.server.send_queue import SendQueue
from gateway.server.stall_clock import STALL_SECONDS, StallClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn import Config
    from uvicorn.server import ServerState

    from gateway.model.at_once import AtOnce, FileBody

MAX_PIPELINED = 128  # requests waiting; one read of the socket can hold thousands
MAX_BODY_BYTES = 1 << 16  # of a request's body that wait for the application; then nothing more is read
HEAD_SECONDS = 10.0  # from a request's first byte, and from the connection, to the end of the headers
LINGER_SECONDS = 1.0  # closing with unread bytes resets the connection, and the answer may be lost with it

_HEADER_OVERHEAD_BYTES = 4  # the colon, a blank and the line end
_SHORT_READ_BYTES = MAX_HEADER_BYTES - 4 * MAX_HEADER_COUNT  # each field counts four bytes more
_MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024

_BODY_OR_EXPECT = frozenset({b"expect"}) | BODY_FIELDS
_OTHER_THAN_LENGTH = _BODY_OR_EXPECT - {NO_BODY[0]}
_TAKEN_METHODS = frozenset({b"GET", b"HEAD"})


class _LeftError(Exception):
    """Leaves the parser from within one of its callbacks."""


class GatewayHttpProtocol(asyncio.Protocol):
    """One connection of any listener. `worker_protocol` makes the subclass that a worker uses.

    It is also the `Connection` of a request that `at_once` has taken.
    """

    __slots__ = (
        "__weakref__",
        "_app_state",
        "_common_scope",
        "_config",
        "_connection",
        "_current",
        "_deadline",
        "_fed_bytes",
        "_fires_at",
        "_has_begun_in_this_feed",
        "_has_stopped_parsing",
        "_headers",
        "_is_head_open",
        "_is_idle",
        "_is_in_message",
        "_is_last_request",
        "_is_limited",
        "_is_lingering",
        "_is_stopping",
        "_loop",
        "_may_be_large",
        "_parser",
        "_receiving",
        "_refusal",
        "_refusal_answer",
        "_server_state",
        "_stall_clock",
        "_target",
        "_timer",
        "_trailer_bytes",
        "flow",
        "is_made",
        "memo",
        "on_lost",
        "peer",
        "sender",
        "transport",
        "waiting",
    )

    at_once: AtOnce | None = None
    stall_seconds = STALL_SECONDS
    send_queue = SendQueue()
    head_starts = HeadStarts()

    transport: asyncio.Transport
    flow: Flow
    _connection: Connection
    _stall_clock: StallClock

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        # The connection
        self.on_lost: Callable[[], None] | None = None  # called once, when the connection is over
        self.is_made = False  # set once the connection is set up, its TLS handshake included
        self.peer: str | None = None
        self.memo: object | None = None
        self.sender: FileSender | None = None  # where the kernel can send files: on a plain connection
        self._common_scope: dict[str, Any] | None = None
        # The request that is being parsed
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._trailer_bytes = 0
        self._may_be_large = False
        self._fed_bytes = 0  # since the head began, from the next read on: what the parser may hold of it
        self._has_begun_in_this_feed = False
        self._is_head_open = self._is_in_message = False
        self._is_last_request = False  # the connection closes after the answer to it
        self._receiving: Exchange | None = None  # the one that the body belongs to
        self._has_stopped_parsing = False
        # What is answered
        self._current: Exchange | Request | None = None
        self.waiting: deque[Exchange | Request] = deque()
        self._refusal: EarlyRefusal | None = None
        self._refusal_answer: bytes | None = None
        self._is_stopping = False
        # The timer
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = self._deadline = 0.0
        self._is_idle = False  # since the last read every request was answered, and none has begun
        self._is_limited = (
            False  # the deadline is that of a request that has begun: more bytes do not move it
        )
        self._is_lingering = False

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the timer for the first request: a connection that stays silent is closed."""
        self.is_made = True
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn's own classes
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)  # the default over TLS is higher
        self.flow = Flow(transport, self.waiting)
        self._connection = Connection(transport, self.flow)
        address = address_of(transport.get_extra_info("peername"))
        self.peer = address[0] if address else None
        self._stall_clock = StallClock(
            self._connection, self._loop, self.stall_seconds, on_stall=self.report_stall
        )
        self._stall_clock.start()
        self._close_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers, whichever side closed the connection, and tell who still works for it."""
        self._server_state.connections.discard(self)
        self._has_stopped_parsing = True
        if self.is_made:
            if exc is not None or self._current is not None:
                self._connection.was_cut_short = True
            self._stall_clock.stop()
            self.flow.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
        if self.sender is not None:
            self.sender.close()
        if isinstance(self._current, Exchange):
            self._current.disconnect()
        self._current = self._receiving = self._parser = None  # the parser holds this protocol
        self.waiting.clear()
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        """Stop writing and reading: the client does not take what was written."""
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """Write on, and read on as well, once the client has taken some."""
        self.flow.resume_writing()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Close the connection once everything that was asked for is answered. uvicorn calls this."""
        self._is_stopping = True
        if isinstance(self._current, Request) and self.at_once is not None:
            self.at_once.finish()
        if self._current is None and self._refusal_answer is None:
            self.transport.close()

    # Parsing

    def data_received(self, data: bytes) -> None:
        """Parse within the limits. Nothing is parsed after a refusal, or after the last request."""
        if self._has_stopped_parsing or self._parser is None:
            return
        # A head that comes whole in a short read is short itself: only others are measured.
        self._may_be_large = self._is_head_open or len(data) > _SHORT_READ_BYTES
        self._has_begun_in_this_feed = self._is_idle = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._has_stopped_parsing = True  # the request itself was accepted; see on_headers_complete
            self.on_message_complete()
        except httptools.HttpParserError:
            if self._is_last_request and not self._is_in_message:
                self._has_stopped_parsing = True  # what follows a request with `Connection: close`
            else:
                self._refuse(self._refusal or EarlyRefusal.MALFORMED_REQUEST)
        else:
            self._limit_head(len(data))

    def _limit_head(self, fed_bytes: int) -> None:
        """Limit what the parser may hold of an unfinished header, and for how long it may be unfinished."""
        if self._is_head_open:
            self._fed_bytes += 0 if self._has_begun_in_this_feed else fed_bytes
            if self._fed_bytes > _MAX_HEAD_BYTES or self._head_bytes() > MAX_HEADER_BYTES:
                self._refuse(EarlyRefusal.HEADERS_TOO_LARGE)
                return
        if self._current is None and not (self._is_idle or self._is_limited):
            # Nothing is being answered: the client has to send, within the limit.
            self._is_limited = True
            self._close_after(HEAD_SECONDS)

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin a new request."""
        if self._is_last_request:
            raise _LeftError
        self._target, self._headers, self._trailer_bytes, self._fed_bytes = b"", [], 0, 0
        self._is_in_message = self._is_head_open = self._has_begun_in_this_feed = True
        self._is_idle = False

    def on_url(self, url: bytes) -> None:
        """A piece of the request target.

        A fragment is no part of it (RFC 9112, 3.2). The parser would drop it and serve the rest; a proxy
        in front of us may have read the target differently.
        """
        if b"#" in url:
            self._leave(EarlyRefusal.MALFORMED_REQUEST)
        if len(self._target) + len(url) > MAX_TARGET_BYTES:
            self._leave(EarlyRefusal.PATH_TOO_LONG)
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which must not be added to the headers that were decided on."""
        headers = self._headers
        if self._is_head_open:
            headers.append((name.lower(), value))
            if len(headers) <= MAX_HEADER_COUNT:  # their size is checked once, when the head is complete
                return
        self._trailer_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        if len(headers) > MAX_HEADER_COUNT or self._head_bytes() + self._trailer_bytes > MAX_HEADER_BYTES:
            self._leave(EarlyRefusal.HEADERS_TOO_LARGE)

    def _head_bytes(self) -> int:
        headers = self._headers
        return sum(map(len, chain.from_iterable(headers))) + len(headers) * _HEADER_OVERHEAD_BYTES

    def on_headers_complete(self) -> None:
        """Refuse the request, or hand it on: to whom is decided once all earlier ones are answered."""
        parser, headers, target = self._parser, self._headers, self._target
        if parser is None:
            raise _LeftError
        self._is_head_open = self._is_limited = False
        if self._may_be_large and self._head_bytes() > MAX_HEADER_BYTES:
            self._leave(EarlyRefusal.HEADERS_TOO_LARGE)
        fields = dict(headers)
        hosts = 1 if b"host" in fields else 0
        if len(fields) < len(headers):
            hosts = [name for name, _ in headers].count(b"host")
        has_body = not _BODY_OR_EXPECT.isdisjoint(fields)  # one is announced, whether or not it comes
        if has_body and fields.get(NO_BODY[0]) == NO_BODY[1] and len(fields) == len(headers):
            has_body = not _OTHER_THAN_LENGTH.isdisjoint(fields)
        version, method = parser.get_http_version(), parser.get_method()
        if len(self.waiting) >= MAX_PIPELINED or not is_http_as_we_know_it(version, hosts):
            self._leave(EarlyRefusal.MALFORMED_REQUEST)
        is_upgrade = parser.should_upgrade()
        if is_upgrade and is_unwanted_upgrade(method, headers):
            self._leave(EarlyRefusal.MALFORMED_REQUEST)
        keep_alive = version == "1.1" and not is_upgrade and parser.should_keep_alive()
        self._is_last_request = not keep_alive
        request = Request(method, target, headers, fields if len(fields) == len(headers) else None)
        is_complete = not has_body and not is_upgrade
        if (
            is_complete
            and keep_alive
            and method in _TAKEN_METHODS
            and self.at_once is not None
            and target.startswith(b"/")
            and target.isascii()
        ):
            self._is_in_message = False
            self._begin(request)
            return
        expects = has_body and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        exchange = self._make_exchange(request, version=version, keep_alive=keep_alive, expects=expects)
        if is_complete:
            self._is_in_message = False
            exchange.end_body()
        else:
            self._receiving = exchange
        self._begin(exchange)

    def on_body(self, body: bytes) -> None:
        """A piece of the body. Nothing more is read while the application has not taken it."""
        if self._receiving is not None and self._receiving.feed(body) > MAX_BODY_BYTES:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """The request is complete, with its body and its trailers."""
        self._is_in_message = self._is_limited = False
        if self._receiving is not None:
            self._receiving.end_body()
            self._receiving = None

    def _leave(self, refusal: EarlyRefusal) -> None:
        self._refusal = refusal
        raise _LeftError

    # Answering, one request after the other

    def _begin(self, request: Exchange | Request) -> None:
        """Answer a request, or let it wait: answers go out in request order."""
        if self._current is None:
            self._answer(request)
        else:
            self.flow.pause_reading()
            self.waiting.append(request)

    def _answer(self, request: Exchange | Request) -> None:
        self._current = request
        if isinstance(request, Exchange):
            self._run(request)
        elif self.at_once is not None and self.may_answer and not self._is_stopping:
            self.at_once.take(request, self)
        else:
            self.pass_on()

    def _go_on(self) -> None:
        """The current request is answered: go on with the next one, or send the refusal that waited."""
        self._current = None
        self._server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.waiting:
            self._answer(self.waiting.popleft())
        elif self._refusal_answer is not None:
            self._send_refusal()
        elif self._is_stopping:
            self.transport.close()
        else:
            self._is_limited = self._is_in_message
            self._is_idle = not self._is_in_message
            self._close_after(HEAD_SECONDS if self._is_limited else self._config.timeout_keep_alive)

    # What `at_once` may call

    @property
    def may_answer(self) -> bool:
        """Whether an answer can be written at once."""
        return not (self.flow.write_paused or self.transport.is_closing())

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Write the whole answer in one system call: status line, server headers, `head`, `body`."""
        self.transport.write(b"".join((self.head_start(status), head, body)))
        self._go_on_if_open()

    @property
    def sends_files(self) -> bool:
        """Whether the kernel can send files on this connection: it is not encrypted."""
        if self._common_scope is None:
            self._open_scope()
        return self.sender is not None

    def answer_with_file(self, status: int, head: bytes, body: FileBody) -> None:
        """Write the head, and have the kernel send the body, now or in later iterations."""
        if self.sender is None:
            raise TypeError("the kernel cannot send files on this connection")
        answer = FileAnswer(body, self, self.sender, self._go_on_if_open)
        if answer.begin(self.head_start(status) + head):
            task = self._loop.create_task(answer.finish())
            task.add_done_callback(answer.give_up)
            self._follow(task)

    def _go_on_if_open(self) -> None:
        if self._current is not None:
            self._go_on()

    def abort(self) -> None:
        """Reset the connection, and drop what is buffered."""
        self._connection.abort()

    def pass_on(self) -> None:
        """Have the application answer the request that was taken."""
        request = self._current
        if isinstance(request, Request) and not self.transport.is_closing():
            exchange = self._make_exchange(request)
            exchange.end_body()
            self._current = exchange
            self._run(exchange)

    # What exchanges call

    def head_start(self, status: int) -> bytes:
        """The status line and the server's own headers."""
        return self.head_starts.find(status, self._server_state.default_headers)

    @property
    def is_last_answer(self) -> bool:
        """Whether the server stops, and no request waits behind the current one."""
        return self._is_stopping and not self.waiting

    def end_exchange(self, exchange: Exchange) -> None:
        """Close the connection, or go on, as the answer is complete."""
        if not exchange.keep_alive:
            self.transport.close()
        self._go_on()

    def _make_exchange(
        self, request: Request, *, version: str = "1.1", keep_alive: bool = True, expects: bool = False
    ) -> Exchange:
        """The request for the application, with its scope. Leaves the parser if the target names no path."""
        target = _split_target(request.target)
        if target is None:
            self._leave(EarlyRefusal.MALFORMED_REQUEST)
            raise AssertionError  # not reached
        raw_path, query = target
        common, root_path = self._common_scope or self._open_scope(), self._config.root_path
        path = raw_path.decode("ascii")
        scope = {
            **common,
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": request.method.decode("ascii"),
            "path": root_path + (unquote(path) if "%" in path else path),
            "raw_path": root_path.encode("ascii") + raw_path,
            "query_string": query,
            "headers": request.headers,
            "state": self._app_state.copy(),
        }
        return Exchange(scope, self, keep_alive=keep_alive, expects=expects)

    def _open_scope(self) -> dict[str, Any]:
        """What all scopes of this connection have in common."""
        transport, is_plain = self.transport, not self.transport.get_extra_info("sslcontext")
        if is_plain:
            self.sender = FileSender(transport, self._loop, self.send_queue)
        self._common_scope = {
            "type": "http",
            "server": address_of(transport.get_extra_info("sockname")),
            "client": address_of(transport.get_extra_info("peername")),
            "scheme": "http" if is_plain else "https",
            "root_path": self._config.root_path,
            **self._connection.for_the_guard,
        }
        return self._common_scope

    def _run(self, exchange: Exchange) -> None:
        self._follow(self._loop.create_task(exchange.run(self._config.loaded_app)))

    def _follow(self, task: asyncio.Task[None]) -> None:
        """Let the server wait for a task when it stops."""
        tasks = self._server_state.tasks
        task.add_done_callback(tasks.discard)
        tasks.add(task)

    # Refusals

    def _refuse(self, refusal: EarlyRefusal) -> None:
        """Record the refusal, send it now or after the earlier answers, and parse nothing more."""
        self._refusal = refusal
        self._has_stopped_parsing = True
        self.report_refusal(refusal, self.peer or "local", self._answer_refusal)
        if self._current is not None and self._receiving is not None:
            self._give_up(self._receiving)
        # Otherwise it was sent, or `_go_on` or `_answer_refusal` sends it.

    def _answer_refusal(self, record_id: str | None) -> None:
        """Send the refusal, which is recorded by now, unless earlier requests are to be answered first."""
        if self._refusal is not None and self._refusal_answer is None:
            self._refusal_answer = self._refusal.answer(record_id or UNRECORDED)
            if self._current is None:
                self._send_refusal()

    def report_refusal(
        self, _refusal: EarlyRefusal, _peer: str, answer: Callable[[str | None], None]
    ) -> None:
        """Report a refusal. `answer` is called with the id of its record, if one was made. Here none is."""
        answer(None)

    def report_stall(self) -> None:
        """Report that the client took nothing for too long and is about to be cut. Here it does nothing."""

    def _give_up(self, broken: Exchange) -> None:
        """Drop the newest request, whose body broke off. Earlier requests still get their answers."""
        if self.waiting and self.waiting[-1] is broken:
            self.waiting.pop()
        elif self._current is broken:
            broken.disconnect()
            if broken.is_started:
                self.transport.close()
            else:
                self._current = None
                self._connection.was_cut_short = True
                self._send_refusal()
        # Otherwise it was answered before its body broke off.

    def _send_refusal(self) -> None:
        refusal, answer = self._refusal, self._refusal_answer
        if refusal is None or answer is None or self.transport.is_closing():
            return
        self.transport.write(self.head_start(refusal.status) + answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()  # to notice when the client closes
        self._is_lingering = True
        self._close_after(LINGER_SECONDS)

    # The timer

    def _close_after(self, seconds: float) -> None:
        """Set the deadline. An earlier timer stays, and is set anew when it fires."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._deadline < self._fires_at:
            self._set_timer(seconds)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires_at = self._deadline
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._current is not None or self.transport.is_closing():
            return  # the deadline is set anew when the request is answered
        left = self._deadline - self._loop.time()
        if left > 0:
            self._set_timer(left)
        elif self._is_head_open and not self._is_lingering:
            self._refuse(EarlyRefusal.SLOW_REQUEST)
        else:  # idle, or only blank lines or the rest of an unneeded body came, or a refusal was sent
            if self.transport.get_write_buffer_size() and not self._is_lingering:
                self._connection.abort()  # the client takes nothing, so it would never close
            self.transport.close()


def _split_target(target: bytes) -> tuple[bytes, bytes] | None:
    """The path and the query of a request target in any form; None if it has no path in ASCII."""
    if not target.isascii():
        return None
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return None
    return (url.path, url.query or b"") if url.path else None


def worker_protocol(
    *,
    on_refused: Callable[[EarlyRefusal, str, Callable[[str | None], None]], None] | None = None,
    on_stall: Callable[[], None] | None = None,
    at_once: AtOnce | None = None,
    stall_seconds: float = STALL_SECONDS,
) -> type[GatewayHttpProtocol]:
    """The protocol class of one worker. Neither `on_refused` nor `on_stall` raises."""
    members: dict[str, Any] = {
        "__slots__": (),
        "at_once": at_once,
        "head_starts": HeadStarts(),
        "send_queue": SendQueue(),
        "stall_seconds": stall_seconds,
    }
    if on_refused is not None:
        members["report_refusal"] = staticmethod(on_refused)
    if on_stall is not None:
        members["report_stall"] = staticmethod(on_stall)
    return type("WorkerProtocol", (GatewayHttpProtocol,), members)
