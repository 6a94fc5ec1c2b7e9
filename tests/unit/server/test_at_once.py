"""Connections of the public listener over real sockets: zero-copy, answers from memory, and their order."""

from __future__ import annotations

import asyncio
import os
import random
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
import uvloop

from gateway.model.answers import Span
from gateway.model.at_once import FileBody
from gateway.server.listener import QuietServer, bind
from gateway.server.protocol import worker_protocol
from tests.certificates import write_certificate

CONTENT = random.Random(5).randbytes(12 << 20)  # more than the buffers between two sockets
ONCE = b"GET /known HTTP/1.1\r\nhost: x\r\n\r\n"
APP = b"GET /app HTTP/1.1\r\nhost: x\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /app HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class App:
    """A small application that keeps what it saw of each request."""

    def __init__(self, file):
        self.file = file
        self.paths = []
        self.scopes = []
        self.errors = []
        self.has_broken_off = threading.Event()
        self.known = b"from the app"

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        self.scopes.append(scope)
        if scope["path"] == "/app":
            await self.answer(send, b"from the app")
        elif scope["path"] == "/known":
            await self.answer(send, self.known)
        elif scope["path"] == "/slow":
            await asyncio.sleep(0.05)
            await self.answer(send, b"slowly")
        else:
            try:
                await getattr(self, scope["path"][1:])(scope, receive, send)
            except Exception as error:
                self.errors.append(error)
                raise

    async def answer(self, send, body):
        await self.start(send, len(body))
        await send({"type": "http.response.body", "body": body})

    async def start(self, send, length):
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    def file_span(self, offset, count, *, more_body):
        place = {"file": self.file, "offset": offset, "count": count, "more_body": more_body}
        return {"type": "http.response.zerocopysend", **place}

    async def whole(self, scope, receive, send):
        await self.start(send, len(CONTENT))
        await send(self.file_span(0, len(CONTENT), more_body=False))

    async def mixed(self, scope, receive, send):
        await self.start(send, 6 + 300_000)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send(self.file_span(1000, 300_000, more_body=True))
        await send({"type": "http.response.body", "body": b"two"})

    async def too_long(self, scope, receive, send):
        await self.start(send, 1000)
        await send(self.file_span(0, 1001, more_body=False))

    async def too_early(self, scope, receive, send):
        await send(self.file_span(0, 1000, more_body=False))

    async def in_chunks(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(self.file_span(0, 1000, more_body=False))

    async def broken_off(self, scope, receive, send):
        await self.start(send, len(CONTENT))
        sending = asyncio.create_task(send(self.file_span(0, len(CONTENT), more_body=False)))
        while not scope["cachegate.sent"]():  # noqa: ASYNC110 -- what the kernel has taken has no event
            await asyncio.sleep(0.001)
        scope["cachegate.abort"]()
        self.has_broken_off.set()
        await sending


class Memory:
    """Takes every request, answers `/known` from memory and passes the rest on."""

    def __init__(self, body=b"from memory"):
        self.body = body
        self.taken = []
        self.asked = self.answered = 0
        self.is_lazy = self.is_eager = self.is_forgetful = False

    def take(self, request, connection):
        assert connection.peer == "127.0.0.1"
        self.asked += 1
        if not self.taken and not self.is_lazy:
            asyncio.get_running_loop().call_soon(self.finish)
        self.taken.append((request, connection))
        if self.is_eager:
            self.finish()

    def finish(self):
        taken, self.taken = self.taken, []
        for request, connection in taken:
            if request.target != b"/known" or self.is_forgetful or not connection.may_answer:
                connection.pass_on()
                continue
            self.answered += 1
            head = b"content-length: %d\r\n\r\n" % len(self.body)
            connection.answer(200, head, self.body if request.method == b"GET" else b"")


class Served:
    """A server in a thread, with an event loop of its own."""

    def __init__(self, app, memory, *, keep_alive_seconds=75, **tls):
        self.listener = bind("127.0.0.1", 0)
        self.address = self.listener.getsockname()
        config = uvicorn.Config(
            app,
            http=worker_protocol(at_once=memory),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=1,
            **tls,
        )
        config.load()
        serving = threading.Event()
        self.loop = None
        self.server = QuietServer(config, serving.set)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert serving.wait(20)

    def _run(self):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self.loop = runner.get_loop()
            runner.run(self.server.serve(sockets=[self.listener]))

    def connect(self):
        return socket.create_connection(self.address, timeout=20)

    def send(self, *pieces, apart=False):
        """All bytes that come back until the server closes; `apart`: each piece is read before the next."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
                if apart:
                    self.await_read()
            return read_all(connection)

    def await_read(self):
        """Wait until the server has read what was sent: its loop ran several full iterations."""
        for _ in range(3):
            went_round = threading.Event()
            self.loop.call_soon_threadsafe(went_round.set)
            assert went_round.wait(60)


def read_all(connection):
    received = bytearray()
    while piece := connection.recv(1 << 18):
        received += piece
    return bytes(received)


def read_answer(connection):
    return read_whole(connection)[1]


def read_head(connection):
    return read_whole(connection)[0]


def read_whole(connection):
    """Head and body of one answer."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(1)
    count = int(re.search(rb"content-length: (\d+)", received)[1])
    body = b""
    while len(body) < count:
        body += connection.recv(count - len(body))
    return received, body


def bodies(received):
    """The bodies of several answers in a row."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        count = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append(received[:count])
        received = received[count:]
    return found


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield App(descriptor)
    os.close(descriptor)


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def serve(app, memory):
    @contextmanager
    def serving(**options):
        served = Served(app, memory, **options)
        try:
            yield served
        finally:
            served.server.stop()
            served.thread.join(20)

    return serving


# Zero-copy


def test_a_file_is_sent_whole(serve, app):
    with serve() as served:
        received = served.send(b"GET /whole HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert received.partition(b"\r\n\r\n")[2] == CONTENT
    assert app.scopes[0]["extensions"] == {"http.response.zerocopysend": {"cachegate.looks": True}}
    assert app.scopes[0]["cachegate.sent"]() == len(CONTENT)


def test_file_ranges_and_bodies_follow_each_other_in_their_order(serve, app):
    with serve() as served:
        received = served.send(b"GET /mixed HTTP/1.1\r\nhost: x\r\n\r\n", APP, LAST)
    assert bodies(received) == [b"one" + CONTENT[1000:301_000] + b"two", b"from the app", b"from the app"]
    assert app.scopes[0]["cachegate.sent"]() == 300_006


@pytest.mark.parametrize("path", [b"too_long", b"too_early", b"in_chunks"])
def test_a_range_that_does_not_fit_the_answer_is_a_defect_and_sends_nothing_of_the_file(path, serve, app):
    with serve() as served:
        received = served.send(b"GET /%b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
    assert CONTENT[:16] not in received
    assert [type(error) for error in app.errors] == [RuntimeError]


def test_a_connection_that_is_broken_off_delivers_nothing_of_what_is_buffered(serve, app):
    with serve() as served, served.connect() as connection:
        connection.sendall(b"GET /broken_off HTTP/1.1\r\nhost: x\r\n\r\n")
        assert app.has_broken_off.wait(30)  # the client has taken nothing until then
        with pytest.raises(ConnectionResetError):
            read_all(connection)
    sent = app.scopes[0]["cachegate.sent"]()
    assert 0 < sent < len(CONTENT)


class Cancelling(Memory):
    """Answers with a file, and has the task that goes on with it cancelled before it begins."""

    def __init__(self, file):
        super().__init__()
        self.file, self.ends = file, []

    def finish(self):
        [(_, connection)] = self.taken
        assert connection.sends_files
        body = FileBody(
            file=self.file,
            pieces=(Span(offset=0, count=len(CONTENT)),),
            verify=lambda: None,
            watch=lambda: None,
            on_end=lambda sent, error: self.ends.append((sent, type(error))),
        )
        connection.answer_with_file(200, b"content-length: %d\r\n\r\n" % len(CONTENT), body)
        for task in asyncio.all_tasks():
            if task.get_coro().__name__ == "finish":
                task.cancel()


def test_a_file_whose_task_is_cancelled_before_it_begins_is_ended_once_all_the_same(app):
    served = Served(app, cancelling := Cancelling(app.file))
    try:
        with served.connect() as connection:
            connection.sendall(ONCE)
            with pytest.raises(ConnectionResetError):
                read_all(connection)
    finally:
        served.server.stop()
        served.thread.join(20)
    [(sent, error)] = cancelling.ends
    assert error is asyncio.CancelledError
    assert sent < len(CONTENT)


# Answers from memory


def test_a_request_that_is_answered_from_memory_never_reaches_the_application(serve, app, memory):
    with serve() as served, served.connect() as connection:
        for _ in range(5):
            connection.sendall(ONCE)
            assert read_answer(connection) == b"from memory"
    assert app.paths == []
    assert memory.answered == 5


def test_an_answer_from_memory_looks_like_one_of_the_application(serve):
    with serve() as served, served.connect() as connection:
        connection.sendall(ONCE)
        first = read_head(connection)
        connection.sendall(APP)
        second = read_head(connection)

    def without_varying(head):
        return re.sub(rb"date: [^\r]+|content-length: \d+", b"", head)

    assert without_varying(first) == without_varying(second)


@pytest.mark.parametrize("apart", [False, True])
def test_answers_go_out_in_the_order_of_the_requests(apart, serve, app):
    app.known = b"from memory"  # a request that waits behind the application goes to it as well
    with serve() as served:
        served.send(ONCE, LAST)
        pieces = [ONCE, APP, ONCE, SLOW, ONCE, ONCE, APP, LAST]
        for sent in (pieces, [b"".join(pieces)], [ONCE, b"".join(pieces[1:])]):
            assert bodies(served.send(*sent, apart=apart)) == [
                b"from memory", b"from the app", b"from memory", b"slowly",
                b"from memory", b"from memory", b"from the app", b"from the app",
            ]  # fmt: skip


def test_a_request_that_is_passed_on_is_answered_by_the_application_once(serve, app, memory):
    memory.is_forgetful = True
    with serve() as served, served.connect() as connection:
        for _ in range(3):
            connection.sendall(ONCE)
            assert read_answer(connection) == b"from the app"
    assert app.paths == ["/known"] * 3
    assert memory.asked == 3


def test_requests_that_wait_are_taken_one_after_the_other(serve, app, memory):
    """Each as soon as the one before it is answered, also where the application answers that."""
    memory.is_lazy = True
    with serve() as served, served.connect() as connection:
        connection.sendall(ONCE * 3 + SLOW + ONCE + LAST)
        for _ in range(3):
            await_taken(memory)
            [(request, _)] = memory.taken
            assert (request.target, app.paths) == (b"/known", [])
            served.loop.call_soon_threadsafe(memory.finish)
            assert read_answer(connection) == b"from memory"
        await_taken(memory)
        served.loop.call_soon_threadsafe(memory.finish)
        assert read_answer(connection) == b"slowly"
        await_taken(memory)
        served.loop.call_soon_threadsafe(memory.finish)
        assert bodies(read_all(connection)) == [b"from memory", b"from the app"]
    assert app.paths == ["/slow", "/app"]


def test_a_refusal_waits_for_the_answer_to_what_was_taken(serve, memory):
    memory.is_lazy = True
    with serve() as served, served.connect() as connection:
        connection.sendall(ONCE + b"garbage\r\n\r\n")
        await_taken(memory)
        served.await_read()
        served.loop.call_soon_threadsafe(memory.finish)
        received = read_all(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"400"]


def test_what_is_answered_within_take_is_answered_in_order(serve, app, memory):
    memory.is_eager = True
    with serve() as served:
        received = served.send(ONCE + ONCE + SLOW + ONCE + LAST)
        assert bodies(received) == [
            b"from memory", b"from memory", b"slowly", b"from memory", b"from the app"
        ]  # fmt: skip


def await_taken(memory):
    while not memory.taken:
        time.sleep(0.01)


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /known HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /known HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n",
        b"GET /known HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /known HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nab",
        b"GET /known HTTP/1.1\r\nhost: x\r\ncontent-length: 00\r\n\r\n",
        b"GET /known HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /known HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\r\n",
        b"GET /known HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    ],
)
def test_what_is_not_the_plainest_request_is_for_the_application(request_, serve, app, memory):
    with serve() as served, served.connect() as connection:
        connection.sendall(request_)
        assert read_answer(connection) == b"from the app"
    assert memory.asked == 0
    assert app.paths == ["/known"]


def test_a_request_that_announces_no_body_is_taken_as_one_without_a_word(serve, app, memory):
    announced = b"GET /known HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    with serve() as served, served.connect() as connection:
        for request_ in (announced, ONCE, announced):
            connection.sendall(request_)
            assert read_answer(connection) == b"from memory"
        memory.is_forgetful = True
        connection.sendall(announced)
        assert read_answer(connection) == b"from the app"
    assert memory.asked == 4
    assert app.paths == ["/known"]


def test_a_client_that_does_not_read_is_not_answered_from_memory_for_ever(serve, app, memory):
    memory.body = CONTENT[: 1 << 16]
    count = 120  # below the limit for pipelined requests
    with serve() as served, served.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sending = threading.Thread(target=connection.sendall, args=(ONCE * count,))
        sending.start()
        time.sleep(0.5)
        written_ahead = memory.asked
        for _ in range(written_ahead):
            assert read_answer(connection) == memory.body
        for _ in range(count - written_ahead):
            read_answer(connection)
        sending.join()
    assert written_ahead < count


def test_a_connection_that_is_answered_from_memory_is_closed_once_it_is_idle(serve):
    pauses = 0
    while not pauses:  # a pause that a busy machine made too long shows nothing
        with serve(keep_alive_seconds=1) as served, served.connect() as connection:
            began_at = time.monotonic()
            connection.sendall(ONCE)
            assert read_answer(connection) == b"from memory"
            time.sleep(0.4)
            asked_at = time.monotonic()
            if asked_at - began_at < 0.6:
                pauses += 1
                connection.sendall(ONCE)
                assert read_answer(connection) == b"from memory"
                assert connection.recv(1) == b""
                assert time.monotonic() - asked_at > 0.99  # the second answer began the time anew


def test_what_was_taken_is_answered_before_a_server_that_stops_closes(serve, memory):
    memory.is_lazy = True
    with serve() as served, served.connect() as connection:
        connection.sendall(ONCE)
        await_taken(memory)
        served.server.stop()
        assert read_answer(connection) == b"from memory"
        assert connection.recv(1) == b""


def test_what_waits_behind_it_is_answered_as_well_and_the_last_answer_says_so(serve, app, memory):
    memory.is_lazy = True
    with serve() as served, served.connect() as connection:
        connection.sendall(ONCE + ONCE + SLOW)
        await_taken(memory)
        served.await_read()
        served.server.stop()
        received = read_all(connection)
    assert received.count(b"connection: close\r\n") == 1
    first, *_, last = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert b"connection: close" not in first
    assert b"connection: close" in last
    assert app.paths == ["/known", "/slow"]


def test_a_request_of_a_client_that_has_left_is_forgotten(serve, app, memory):
    memory.is_lazy = True
    with serve() as served:
        with served.connect() as connection:
            connection.sendall(ONCE)
            await_taken(memory)
        [(_, connection)] = memory.taken
        while not connection.transport.is_closing():
            time.sleep(0.01)
        memory.is_lazy = False
        with served.connect() as other:
            other.sendall(ONCE)
            served.await_read()
            served.loop.call_soon_threadsafe(memory.finish)
            assert read_answer(other) == b"from memory"
    assert memory.answered == 1
    assert app.paths == []


def test_over_tls_the_extension_is_not_offered_and_answers_from_memory_are(serve, app, memory, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(certificate, key)
    context = ssl.create_default_context(cafile=certificate)
    with (
        serve(ssl_certfile=certificate, ssl_keyfile=key) as served,
        served.connect() as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        for request, answer in ((ONCE, b"from memory"), (ONCE, b"from memory"), (APP, b"from the app")):
            connection.sendall(request)
            assert read_answer(connection) == answer
    assert "extensions" not in app.scopes[0]
    assert memory.answered == 2
