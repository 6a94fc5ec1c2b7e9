"""One request and its answer through ASGI, on a transport that keeps what is written."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.server.protocol import MAX_BODY_BYTES, worker_protocol

GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n"


class Wire:
    """A transport to a client that takes everything."""

    def __init__(self):
        self.written = b""
        self.is_reading = True
        self.is_closed = False

    def write(self, data):
        assert not self.is_closed
        self.written += data

    def close(self):
        self.is_closed = True

    abort = close

    def is_closing(self):
        return self.is_closed

    def pause_reading(self):
        self.is_reading = False

    def resume_reading(self):
        self.is_reading = True

    def set_write_buffer_limits(self, high):
        pass

    def get_write_buffer_size(self):
        return 0

    def can_write_eof(self):
        return False

    def get_extra_info(self, name):
        return {"peername": ("192.0.2.7", 4711), "sockname": ("192.0.2.1", 80)}.get(name)

    @property
    def head(self):
        return self.written.partition(b"\r\n\r\n")[0].split(b"\r\n")

    @property
    def body(self):
        return self.written.partition(b"\r\n\r\n")[2]


class Client:
    """One connection to an application."""

    def __init__(self, app, on_refused=None, at_once=None, **config):
        kind = worker_protocol(on_refused=on_refused, at_once=at_once)
        configuration = uvicorn.Config(app, http=kind, lifespan="off", log_config=None, **config)
        configuration.load()
        self.wire, self.state = Wire(), ServerState()
        self.protocol = configuration.http_protocol_class(configuration, self.state, {"of": "the app"})
        self.protocol.connection_made(self.wire)

    async def send(self, data):
        if not self.wire.is_closed:  # then no transport would read on
            self.protocol.data_received(data)
        for _ in range(10):
            await asyncio.sleep(0)

    async def leave(self):
        self.protocol.connection_lost(None)
        for _ in range(10):
            await asyncio.sleep(0)


def exchange(app, *pieces, **config):
    """Feed the pieces; what was written, and whether the connection was closed."""

    async def scenario():
        client = Client(app, **config)
        for piece in pieces:
            await client.send(piece)
        await client.leave()
        return client.wire

    return asyncio.run(scenario())


def answering(*bodies, status=200, headers=()):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


def length(count):
    return (b"content-length", b"%d" % count)


# The answer


def test_an_answer_without_a_length_is_sent_in_chunks():
    wire = exchange(answering(b"one", b"", b"two", b""), GET)
    assert b"transfer-encoding: chunked" in wire.head
    assert wire.body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert not wire.is_closed


def test_a_client_of_http_1_0_gets_it_until_the_connection_closes():
    wire = exchange(answering(b"one", b"two"), b"GET /a HTTP/1.0\r\n\r\n")
    assert b"transfer-encoding: chunked" not in wire.head
    assert b"connection: close" in wire.head
    assert wire.body == b"onetwo"
    assert wire.is_closed


def test_a_head_request_gets_the_head_alone():
    wire = exchange(answering(b"body", headers=[length(4)]), GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 4" in wire.head
    assert wire.body == b""
    assert not wire.is_closed


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status):
    wire = exchange(answering(b"must not be sent", status=status, headers=[length(16)]), GET)
    assert wire.written.startswith(b"HTTP/1.1 %d " % status)
    assert wire.body == b""
    wire = exchange(answering(b"", status=status), GET)
    assert b"transfer-encoding: chunked" not in wire.head


@pytest.mark.parametrize("status", [200, 404, 499, 599])
def test_every_status_has_its_line(status):
    assert exchange(answering(b"", status=status), GET).written.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    "header",
    [(b"a", b"b\r\nset-cookie: c"), (b"a", b"b\nc"), (b"a\r\nb", b"c"), (b"a b", b"c"), (b"a:", b"c")],
)
def test_a_header_that_would_begin_another_one_is_never_written(header, caplog):
    wire = exchange(answering(b"", headers=[header]), GET)
    assert wire.head[0] == b"HTTP/1.1 500 Internal Server Error"
    assert b"set-cookie" not in wire.written
    assert wire.is_closed
    assert len(caplog.records) == 1


def test_a_connection_that_the_application_closes_is_closed_and_says_so_once():
    wire = exchange(answering(b"", headers=[length(0), (b"Connection", b"x, Close")]), GET, GET)
    assert wire.written.lower().count(b"connection:") == 1
    assert wire.written.count(b"HTTP/1.1") == 1
    assert wire.is_closed


@pytest.mark.parametrize(("count", "sent"), [(3, b""), (5, b"body")])
def test_a_body_that_is_not_as_long_as_announced_is_not_an_answer(count, sent, caplog):
    wire = exchange(answering(b"body", headers=[length(count)]), GET)
    assert wire.is_closed
    assert wire.body == sent  # none of it where it would read as the beginning of the next answer
    assert [record.exc_info[0] for record in caplog.records] == [RuntimeError]


# Errors of the application


def failing(*, is_started, error):
    async def app(scope, receive, send):
        if is_started:
            await send({"type": "http.response.start", "status": 200, "headers": [length(4)]})
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize("error", [ValueError(), None, SystemExit()])
def test_an_application_that_fails_before_its_answer_is_answered_500(error, caplog):
    wire = exchange(failing(is_started=False, error=error), GET, GET)
    assert wire.head[0] == b"HTTP/1.1 500 Internal Server Error"
    assert b"connection: close" in wire.head
    assert wire.body == b"Internal Server Error"
    assert wire.is_closed
    assert len(caplog.records) == 1


@pytest.mark.parametrize("error", [ValueError(), None])
def test_one_that_fails_within_its_answer_has_the_connection_closed(error, caplog):
    wire = exchange(failing(is_started=True, error=error), GET)
    assert wire.written.count(b"HTTP/1.1") == 1
    assert wire.body == b""
    assert wire.is_closed
    assert len(caplog.records) == 1


def test_one_that_is_cancelled_is_no_defect(caplog):
    async def scenario():
        async def app(scope, receive, send):
            await asyncio.sleep(3600)

        client = Client(app)
        await client.send(GET)
        [task] = client.state.tasks
        task.cancel()
        await asyncio.wait([task])
        assert client.wire.head[0] == b"HTTP/1.1 500 Internal Server Error"
        assert client.wire.is_closed
        await client.leave()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(scenario())
    assert [record for record in caplog.records if record.name != "asyncio"] == []


def test_messages_out_of_order_are_a_defect(caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.body", "body": b""})

    assert exchange(app, GET).head[0].startswith(b"HTTP/1.1 500")
    wire = exchange(answering(b"", b"", headers=[length(0)]), GET)
    assert wire.head[0].startswith(b"HTTP/1.1 200")
    assert len(caplog.records) == 1


# The request


class Reading:
    """Keeps the messages that it receives, each once it is told to go on."""

    def __init__(self):
        self.messages = []
        self.may_go_on = asyncio.Semaphore(0)

    async def __call__(self, scope, receive, send):
        while True:
            await self.may_go_on.acquire()
            self.messages.append(await receive())
            if self.messages[-1]["type"] == "http.disconnect":
                return


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what it sees has no event
            await asyncio.sleep(0)


def test_a_body_comes_in_pieces_and_no_more_is_read_than_waits():
    async def scenario():
        app = Reading()
        client, piece = Client(app), bytes(MAX_BODY_BYTES // 2 + 1)
        await client.send(POST % (3 * len(piece), b"") + piece)
        assert client.wire.is_reading
        await client.send(piece)
        assert not client.wire.is_reading
        app.may_go_on.release()
        await until(lambda: client.wire.is_reading)
        await client.send(piece)
        app.may_go_on.release()
        await until(lambda: len(app.messages) == 2)
        assert [(len(message["body"]), message["more_body"]) for message in app.messages] == [
            (2 * len(piece), True), (len(piece), False)
        ]  # fmt: skip
        await client.leave()
        app.may_go_on.release()
        await until(lambda: app.messages[-1] == {"type": "http.disconnect"})

    asyncio.run(scenario())


def test_a_client_that_leaves_is_noticed_while_its_body_is_awaited():
    async def scenario():
        app = Reading()
        app.may_go_on = asyncio.Semaphore(9)
        client = Client(app)
        await client.send(POST % (9, b""))
        assert app.messages == []
        await client.leave()
        assert app.messages == [{"type": "http.disconnect"}]
        assert not client.state.tasks

    asyncio.run(scenario())


def test_after_the_answer_there_is_nothing_to_receive():
    received = []

    async def app(scope, receive, send):
        await answering(b"", headers=[length(0)])(scope, receive, send)
        received.append(await receive())

    exchange(app, POST % (3, b"") + b"abc")
    assert received == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("is_read", [True, False])
def test_a_body_that_waits_for_it_is_asked_for_when_the_application_reads(is_read):
    async def app(scope, receive, send):
        if is_read:
            while (await receive())["more_body"]:
                pass
        await answering(b"", headers=[length(0)])(scope, receive, send)

    wire = exchange(app, POST % (3, b"expect: 100-continue\r\n"), b"abc")
    expected = [b"HTTP/1.1 100 Continue"] if is_read else [b"HTTP/1.1 200 OK"]
    assert wire.head[:1] == expected
    assert wire.written.count(b"HTTP/1.1 100") == is_read
    assert wire.written.count(b"HTTP/1.1 200") == 1


def scope_of(request, **config):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answering(b"")(scope, receive, send)

    exchange(app, request, **config)
    return scopes[0]


def test_a_scope_has_what_asgi_says():
    scope = scope_of(b"GET /%41/b?c=%20 HTTP/1.1\r\nHost: x\r\nA: B\r\n\r\n", root_path="/root")
    assert {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "query_string": b"c=%20",
        "path": "/root/A/b", "raw_path": b"/root/%41/b", "root_path": "/root",
        "client": ("192.0.2.7", 4711), "server": ("192.0.2.1", 80),
        "headers": [(b"host", b"x"), (b"a", b"B")],
        "state": {"of": "the app"},
    }.items() <= scope.items()  # fmt: skip
    assert scope["asgi"]["spec_version"] == "2.3"


@pytest.mark.parametrize(
    ("target", "raw_path", "query"),
    [(b"http://x/a?b", b"/a", b"b"), (b"*", b"*", b""), (b"/a?b?c", b"/a", b"b?c"), (b"//a", b"//a", b"")],
)
def test_a_target_in_any_form_has_its_path(target, raw_path, query):
    scope = scope_of(b"OPTIONS %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    assert (scope["raw_path"], scope["query_string"]) == (raw_path, query)


# The connection


def test_requests_set_no_timer(monkeypatch):
    async def scenario():
        client = Client(answering(b"", headers=[length(0)]))
        await client.send(GET)
        timers = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda *arguments: timers.append(arguments))
        for _ in range(10):
            await client.send(GET)
        assert client.state.total_requests == 11
        assert timers == []
        await client.leave()

    asyncio.run(scenario())


LAST_REQUESTS = [
    GET.replace(b"host", b"connection: close\r\nhost"),
    GET.replace(b"1.1", b"1.0"),
    GET.replace(b"1.1", b"1.0").replace(b"host", b"connection: keep-alive\r\nhost"),
    GET.replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost"),
]


@pytest.mark.parametrize("request_", LAST_REQUESTS)
@pytest.mark.parametrize("follows", [b"garbage\r\n\r\n", GET, b"GET /" + b"a" * 10_000])
def test_what_follows_the_last_request_is_not_parsed_and_not_refused(request_, follows):
    refused, asked = [], []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        await answering(b"", headers=[length(0)])(scope, receive, send)

    wire = exchange(app, request_ + follows, on_refused=lambda *why: refused.append(why))
    assert wire.written.count(b"HTTP/1.1 ") == len(asked) == 1
    assert wire.is_closed
    assert refused == []


def test_a_request_that_was_taken_on_a_connection_that_closes_is_not_passed_on():
    class Core:
        def take(self, request, connection):
            connection.transport.close()
            connection.pass_on()

    asked = []

    async def app(scope, receive, send):
        asked.append(scope)

    assert exchange(app, GET, at_once=Core()).written == b""
    assert asked == []
