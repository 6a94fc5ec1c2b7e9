"""Real HTTP/1.1 servers over sockets, each of which answers as its test says."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from gateway.adapters import inference_server
from gateway.adapters.inference_server import InferenceClient, InferenceFailed, InferenceLimits

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
FORGED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
NEVER = 30.0  # of a time-out that the test does not wait for


class Request(msgspec.Struct, kw_only=True):
    method: str = "POST"
    target: bytes = b"/infer"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes | None = b"{}"


@asynccontextmanager
async def listening(serve, tls=None):
    """A server's URL. Its connections end with it, whatever they wait for."""
    tasks = []

    async def handle(reader, writer):
        tasks.append(asyncio.current_task())
        try:
            await serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the end: asyncio would report it as a failure of ours
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
    try:
        origin = "http://127.0.0.1" if tls is None else "https://localhost"
        yield f"{origin}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Server:
    """Answers the requests of all its connections, in order, with `answers`; the last one is repeated.

    An answer is bytes, or a list of what is done in turn: bytes are written, an event is waited for, CLOSE
    closes the connection.
    """

    def __init__(self, *answers, tls=None):
        self.answers, self.tls = list(answers) or [OK], tls
        self.heads, self.bodies = [], []
        self.connections = 0
        self.came, self.left = asyncio.Event(), asyncio.Event()

    async def __aenter__(self):
        self._running = listening(self._serve, self.tls)
        self.url = await self._running.__aenter__()
        return self

    async def __aexit__(self, *_):
        await self._running.__aexit__(None, None, None)

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.came.set()
                self.bodies.append(await self._read_body(head.lower(), reader))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for step in answer if isinstance(answer, list) else [answer]:
                    if step is CLOSE:
                        return
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        writer.write(step)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.left.set()

    async def _read_body(self, head, reader):
        if b"transfer-encoding: chunked" in head:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
            return body
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await reader.readexactly(int(line.split(b":")[1]))
        return b""


CLOSE = object()


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request):
    """The worker's event loop, and the standard one: their transports differ."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def client():
    one = InferenceClient(InferenceLimits(connect_seconds=5, first_byte_seconds=NEVER, idle_seconds=NEVER))
    yield one
    await one.close()


async def ask(client, server, **request):
    """The status, headers and body of one whole exchange."""
    answer = await client.send(server.url, Request(**request))
    try:
        return answer.status, answer.headers, b"".join([piece async for piece in answer.chunks()])
    finally:
        await answer.close()


async def fail(client, server, **request) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as caught:
        await ask(client, server, **request)
    return caught.value


async def test_a_request_arrives_byte_for_byte(client):
    target = b"/inference/../a%2Fb/./%63?x=%20&x=2&&y"
    async with Server() as server:
        found = await ask(client, server, target=target, headers=((b"X-A", b"caf\xe9"),), body=b"\x00{}")
    assert found == (200, [(b"content-length", b"2")], b"{}")
    lines = server.heads[0].split(b"\r\n")
    assert lines[0] == b"POST " + target + b" HTTP/1.1"
    host = server.url.removeprefix("http://").encode()
    assert {line.lower() for line in lines[1:] if line} == {
        b"host: " + host,
        b"x-a: caf\xe9",
        b"accept-encoding: identity",
        b"content-length: 3",
    }
    assert server.bodies == [b"\x00{}"]


async def test_the_path_of_a_servers_url_comes_before_the_target(client):
    async with Server() as server:
        server.url += "/models"
        await ask(client, server, target=b"/infer?a=b")
    assert server.heads[0].startswith(b"POST /models/infer?a=b HTTP/1.1\r\n")


async def test_a_get_has_no_body_and_no_length(client):
    async with Server() as server:
        await ask(client, server, method="GET", body=None)
    assert b"content-length" not in server.heads[0].lower()
    assert b"transfer-encoding" not in server.heads[0].lower()


@pytest.mark.parametrize("name", sorted(inference_server._FRAMING))
async def test_the_framing_is_never_the_callers(client, name):
    async with Server() as server:
        with pytest.raises(ValueError, match="framing"):
            await client.send(server.url, Request(headers=((name.upper(), b"1"),)))
    assert not server.connections


@pytest.mark.parametrize(
    "request_",
    [
        Request(headers=((b"x", b"a\r\nhost: other"),)),
        Request(headers=((b"x\r\ny", b"a"),)),
        Request(target=b"/a HTTP/1.1\r\nx: y\r\n\r\n"),
        Request(target=b"/a\x00"),
        Request(method="GET / HTTP/1.1\r\nx: y\r\n\r\nPOST"),
    ],
)
async def test_what_would_split_a_request_is_not_sent(client, request_):
    async with Server() as server:
        with pytest.raises(InferenceFailed):
            await client.send(server.url, request_)
    assert not server.heads


async def test_a_target_that_is_no_path_is_not_sent(client):
    async with Server() as server:
        with pytest.raises(ValueError, match="slash"):
            await client.send(server.url, Request(target=b"http://elsewhere/"))
    assert not server.connections


@pytest.mark.parametrize("length", [None, 6])
async def test_a_body_is_streamed_as_it_comes(client, length):
    gate = asyncio.Event()

    async def body():
        yield b"abc"
        yield b""
        await gate.wait()
        yield b"def"

    async with Server() as server:
        sending = asyncio.create_task(client.send(server.url, Request(body=None), body(), length=length))
        await server.came.wait()  # the head is there while the body is not
        assert not server.bodies
        gate.set()
        await (await sending).close()
    assert server.bodies == [b"abcdef"]


async def test_a_body_that_breaks_off_ends_the_connection_and_comes_out_as_it_is(client):
    class GoneError(Exception):
        pass

    async def body():
        yield b"abc"
        raise GoneError

    async with Server() as server:
        with pytest.raises(GoneError):
            await client.send(server.url, Request(body=None), body(), length=6)
        await server.left.wait()
    assert not server.bodies


async def test_a_time_out_of_the_client_is_not_the_servers(client):
    async def body():
        yield b"abc"
        raise TimeoutError

    async with Server() as server:
        with pytest.raises(TimeoutError):
            await client.send(server.url, Request(body=None), body())


async def test_a_body_of_another_length_than_announced_is_a_failure(client):
    async def body():
        yield b"abc"

    async with Server() as server:
        for length in (2, 4):
            with pytest.raises(InferenceFailed) as caught:
                await client.send(server.url, Request(body=None), body(), length=length)
            assert caught.value.was_sent
            assert not caught.value.is_of_server
    assert not server.bodies


async def test_an_answer_streams_as_it_comes(client):
    gate = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with Server([head + b"3\r\nabc\r\n", gate, b"3\r\ndef\r\n0\r\n\r\n"]) as server:
        answer = await client.send(server.url, Request())
        pieces = answer.chunks()
        assert await anext(pieces) == b"abc"
        gate.set()
        assert await anext(pieces) == b"def"
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
        await answer.close()


async def test_nothing_is_decompressed(client):
    packed = gzip.compress(b"text")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with Server(head + packed) as server:
        _, headers, body = await ask(client, server)
    assert (b"content-encoding", b"gzip") in headers
    assert body == packed


async def test_redirects_are_not_followed_and_cookies_not_kept(client):
    moved = b"HTTP/1.1 302 X\r\nlocation: /x\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    async with Server(moved) as server:
        assert (await ask(client, server))[0] == 302
        await ask(client, server)
    assert len(server.heads) == 2
    assert b"cookie" not in server.heads[1].lower()


# Connections


async def test_a_connection_is_used_again(client):
    async with Server() as server:
        for _ in range(3):
            assert (await ask(client, server))[2] == b"{}"
    assert server.connections == 1


async def test_an_answer_of_which_all_bytes_were_taken_leaves_its_connection(client):
    """Who knows the length does not ask for one more piece."""
    async with Server() as server:
        for _ in range(3):
            answer = await client.send(server.url, Request())
            assert await anext(answer.chunks()) == b"{}"
            await answer.close()
    assert server.connections == 1


async def test_bytes_after_an_answer_are_seen_though_nobody_asks_for_one_more_piece(client):
    async with Server(OK + FORGED, OK) as server:
        answer = await client.send(server.url, Request())
        assert await anext(answer.chunks()) == b"{}"
        await answer.close()
        assert (await ask(client, server))[2] == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK + FORGED,
        CHUNKED + FORGED,
        # the header's value holds a line break: what follows reads as a second answer
        b"HTTP/1.1 200 OK\r\nx-model-id: a\r\nContent-Length: 2\r\n\r\n{}" + FORGED,
        OK + b"x",
    ],
)
async def test_bytes_after_an_answer_never_answer_the_next_request(client, answer):
    async with Server(answer, OK) as server:
        assert (await ask(client, server))[2] == b"{}"
        assert (await ask(client, server))[2] == b"{}"
    assert server.connections == 2


async def test_bytes_that_wait_behind_a_full_read_never_answer_the_next_request(client):
    """A read of 64 KiB that ends where the answer ends: what follows lies before the parser, not in it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    size = (1 << 16) - len(head % 65000)
    answer = head % size + b"a" * size
    assert len(answer) == 1 << 16
    async with Server(answer + FORGED, OK) as server:
        assert (await ask(client, server))[2] == b"a" * size
        assert (await ask(client, server))[2] == b"{}"


async def test_an_answer_that_nobody_asked_for_is_not_read_later(client):
    gate = asyncio.Event()
    async with Server([OK, gate, FORGED, CLOSE], OK) as server:
        assert (await ask(client, server))[2] == b"{}"
        gate.set()
        await server.left.wait()
        assert (await ask(client, server))[2] == b"{}"
    assert server.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again(client):
    async with Server([OK, CLOSE], OK) as server:
        assert (await ask(client, server))[2] == b"{}"
        await server.left.wait()
        assert (await ask(client, server))[2] == b"{}"


async def test_bytes_that_nobody_asked_for_close_an_idle_connection(client):
    gate = asyncio.Event()
    async with Server([OK, gate, FORGED]) as server:
        assert (await ask(client, server))[2] == b"{}"
        gate.set()
        await server.left.wait()


async def test_an_idle_connection_is_closed_before_servers_close_it(client, monkeypatch):
    monkeypatch.setattr(inference_server, "KEEP_SECONDS", 0.01)
    async with Server() as server:
        await ask(client, server)
        await server.left.wait()


async def test_a_bounded_number_of_connections_is_kept(client, monkeypatch):
    monkeypatch.setattr(inference_server, "MAX_KEPT", 1)
    async with Server() as one, Server() as other:
        await ask(client, one)
        await ask(client, other)
        await other.left.wait()
        await ask(client, one)
    assert one.connections == 1


async def test_a_client_that_is_closed_keeps_no_connection(client):
    async with Server() as server:
        answer = await client.send(server.url, Request())
        other = await client.send(server.url, Request())
        await other.close()
        await client.close()
        assert await anext(answer.chunks()) == b"{}"
        await server.left.wait()


async def test_a_request_on_a_kept_connection_that_ends_counts_as_sent(client):
    """The server takes the request and closes: nobody can tell whether it ran."""
    async with Server(OK, [CLOSE]) as server:
        await ask(client, server)
        failure = await fail(client, server)
    assert failure.was_sent
    assert failure.is_of_server
    assert len(server.heads) == 2  # and it was not sent once more


async def test_a_server_that_is_not_there_was_sent_nothing(client):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = Server()
        server.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        failure = await fail(client, server)
    assert not failure.was_sent
    assert failure.is_of_server


async def test_a_body_is_not_begun_when_the_server_is_not_there(client):
    begun = []

    async def body():
        begun.append(True)
        yield b"abc"

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InferenceFailed):
            await client.send(f"http://127.0.0.1:{unused.getsockname()[1]}", Request(body=None), body())
    assert not begun


async def test_a_server_without_room_for_a_connection_was_sent_nothing():
    client = InferenceClient(InferenceLimits(connect_seconds=0.05))
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # they fill its queue
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        server = Server()
        server.url = f"http://127.0.0.1:{address[1]}"
        failure = await fail(client, server)
        for one in waiting:
            one.close()
    assert not failure.was_sent
    await client.close()


async def test_many_requests_at_once_have_their_own_answers(client):
    numbers = range(60)

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                name = head.split(b" ")[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))
        except asyncio.IncompleteReadError:
            writer.close()

    server = Server()
    async with listening(serve) as server.url:
        requests = [ask(client, server, method="GET", target=b"/%d" % one, body=None) for one in numbers]
        found = await asyncio.gather(*requests)
    assert [body for *_, body in found] == [b"/%d" % one for one in numbers]


# An answer that begins before the request was sent whole

TOO_LARGE = b"HTTP/1.1 413 X\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def refusing():
    """A server that answers the head of a request and reads no body. And when its client has left."""
    left = asyncio.Event()

    async def serve(reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(TOO_LARGE)
            await writer.drain()
            await reader.read(1)  # of the body
            with suppress(ConnectionError):
                while await reader.read(1 << 16):
                    pass
            left.set()
            return

    async with listening(serve) as url:
        yield url, left


async def test_an_early_answer_to_a_streamed_body_is_passed_on_and_the_connection_not_used_again(client):
    is_over = asyncio.Event()

    async def body():
        try:
            yield b"abc"
            await asyncio.Event().wait()
        finally:
            is_over.set()

    async with refusing() as (url, left):
        answer = await client.send(url, Request(body=None), body(), length=9)
        assert answer.status == 413
        await is_over.wait()  # nobody reads the body any more: the client may be answered
        assert [piece async for piece in answer.chunks()] == [b"{}"]
        await answer.close()
        await left.wait()


async def test_an_early_answer_to_a_large_body_is_passed_on_and_the_connection_not_used_again(client):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TOO_LARGE)
        await writer.drain()
        await never.wait()  # it reads no more

    never = asyncio.Event()
    server = Server()
    async with listening(serve) as server.url:
        status, _, body = await ask(client, server, body=bytes(32 << 20))
        assert (status, body) == (413, b"{}")
        assert not client._pool._count


async def test_a_large_body_arrives_whole(client):
    body = bytes(range(256)) * (20 << 10)
    async with Server() as server:
        assert (await ask(client, server, body=body))[2] == b"{}"
        assert (await ask(client, server, body=b"{}"))[2] == b"{}"
    assert server.bodies == [body, b"{}"]
    assert server.connections == 1


async def test_a_server_that_does_not_read_is_a_time_out_that_is_no_sign_of_a_broken_server():
    client = InferenceClient(InferenceLimits(first_byte_seconds=NEVER, idle_seconds=0.05))
    never = asyncio.Event()

    async def serve(reader, writer):
        await never.wait()

    async def pieces():
        while True:
            yield bytes(1 << 20)

    server = Server()
    async with listening(serve) as server.url:
        failure = await fail(client, server, body=bytes(32 << 20))
        assert failure.was_sent
        assert not failure.is_of_server
        with pytest.raises(InferenceFailed) as caught:
            await client.send(server.url, Request(body=None), pieces())
        assert caught.value.was_sent
        assert not caught.value.is_of_server
    await client.close()


# TLS


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """The certificate of a server at localhost, which is its own authority, as the only one trusted."""
    key, certificate = tmp_path / "key.pem", tmp_path / "tls.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    paths = f"-keyout {key} -out {certificate}"
    subprocess.run(f"{command} {names} {paths}".split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def test_a_server_is_asked_over_tls_and_its_connection_used_again(authority, monkeypatch):
    context, certificate = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = InferenceClient()
    body = b"x" * (5 << 20)
    async with Server(OK, OK + FORGED, OK, tls=context) as server:
        for _ in range(4):
            assert (await ask(client, server, body=body))[2] == b"{}"
    assert server.bodies == [body] * 4
    assert server.connections == 2  # another one after bytes that nobody asked for
    await client.close()


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_server_that_does_not_prove_its_name_is_sent_nothing(authority, monkeypatch, is_known):
    context, certificate = authority
    if is_known:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    client = InferenceClient()
    async with Server(tls=context) as server:
        if is_known:
            server.url = server.url.replace("localhost", "127.0.0.1")
        failure = await fail(client, server)
    assert not failure.was_sent
    assert not server.heads
    await client.close()


# A client that leaves


async def test_an_answer_that_is_left_ends_the_connection(client):
    never = asyncio.Event()
    async with Server([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", never]) as server:
        answer = await client.send(server.url, Request())
        pieces = answer.chunks()
        assert await anext(pieces) == b"abc"
        await answer.close()
        never.set()
        await server.left.wait()


async def test_a_wait_for_an_answer_that_is_cancelled_ends_the_connection(client):
    closed = asyncio.Event()
    came = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        while await reader.read(1 << 16):
            pass
        closed.set()
        writer.close()

    async with listening(serve) as url:
        sending = asyncio.create_task(client.send(url, Request()))
        await came.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await closed.wait()


# Answers that break off, or are none


@pytest.mark.parametrize(
    "answer",
    [
        [CLOSE],
        [b"HTTP/1.1 200", CLOSE],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", CLOSE],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", CLOSE],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", CLOSE],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 50_000 + b"content-length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"<html>\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_is_a_failure_and_never_a_shorter_answer(client, answer):
    async with Server(answer, OK) as server:
        failure = await fail(client, server)
        assert failure.was_sent
        assert failure.is_of_server
        assert (await ask(client, server))[2] == b"{}"
    assert server.connections == 2


async def test_informational_answers_are_not_the_answer(client):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with Server(early + OK) as server:
        status, headers, body = await ask(client, server)
    assert (status, headers, body) == (200, [(b"content-length", b"2")], b"{}")


async def test_a_failure_tells_nothing_of_the_request_or_the_answer(client):
    async with Server([b"HTTP/1.1 200 OK\r\nx y: secret\r\n\r\n", CLOSE]) as server:
        failure = await fail(client, server, target=b"/infer?api_key=secret")
    assert "secret" not in failure.why
    assert server.url not in failure.why


# Time-outs: the server's steps never come, and nothing else is waited for


async def test_a_first_byte_that_does_not_come_is_a_time_out_that_is_no_sign_of_a_broken_server():
    client = InferenceClient(InferenceLimits(first_byte_seconds=0.05, idle_seconds=NEVER))
    async with Server([asyncio.Event()]) as server:
        failure = await fail(client, server)
    assert failure.was_sent
    assert not failure.is_of_server
    await client.close()


async def test_informational_answers_do_not_put_off_the_time_out():
    client = InferenceClient(InferenceLimits(first_byte_seconds=0.05, idle_seconds=NEVER))

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        try:
            while True:
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.005)
        except ConnectionError:
            writer.close()

    server = Server()
    async with listening(serve) as server.url:
        assert not (await fail(client, server)).is_of_server
    await client.close()


async def test_the_time_of_the_client_is_not_counted():
    """The body takes longer than the first byte may: the wait begins when the request is sent."""
    client = InferenceClient(InferenceLimits(first_byte_seconds=5.0, idle_seconds=NEVER))
    clock = asyncio.get_running_loop()

    async def body():
        yield b"abc"
        moment = clock.time
        clock.time = lambda: moment() + 100  # the client took 100 s
        yield b"def"

    async with Server() as server:
        try:
            answer = await client.send(server.url, Request(body=None), body())
        finally:
            del clock.time
        assert answer.status == 200
        await answer.close()
    await client.close()


async def test_a_pause_within_an_answer_is_a_time_out():
    client = InferenceClient(InferenceLimits(first_byte_seconds=NEVER, idle_seconds=0.05))
    begun = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"
    async with Server([begun, asyncio.Event()]) as server:
        answer = await client.send(server.url, Request())
        pieces = answer.chunks()
        assert await anext(pieces) == b"abc"
        with pytest.raises(InferenceFailed) as caught:
            await anext(pieces)
        assert caught.value.was_sent
        assert not caught.value.is_of_server
        await answer.close()
    await client.close()


# Health checks


class Checked:
    def __init__(self, url):
        self.url, self.results = url, []

    def note_check(self, *, is_ready):
        self.results.append(is_ready)


async def test_a_server_is_ready_when_it_says_so(client):
    refused = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
    async with Server(OK, refused, [CLOSE], OK) as server:
        assert [await client.is_ready(server.url) for _ in range(4)] == [True, False, False, True]
    assert server.heads[0].startswith(b"GET /readiness HTTP/1.1\r\n")


async def test_a_server_that_does_not_answer_a_check_is_not_ready(client, monkeypatch):
    monkeypatch.setattr(inference_server, "CHECK_ANSWER_SECONDS", 0.05)
    async with Server([asyncio.Event()]) as server:
        assert not await client.is_ready(server.url)


async def test_all_servers_are_checked_again_and_again(client):
    class EnoughError(Exception):
        pass

    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            raise EnoughError

    refused = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
    async with Server() as good, Server(refused) as bad:
        servers = [Checked(good.url), Checked(bad.url)]
        with pytest.raises(EnoughError):
            await client.check_forever(servers, sleep=sleep)
    assert [one.results for one in servers] == [[True, True], [False, False]]
