from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.adapters import provider as provider_module
from gateway.adapters.clock import SystemClock
from gateway.adapters.provider import MAX_ANSWER_BYTES, MAX_REDIRECTS, Provider
from gateway.model.errors import Reason, Unavailable
from tests.ports import free_port

pytestmark = pytest.mark.anyio

KEY = "a-secret-key"
AUTHORIZATION = (b"authorization", f"Bearer {KEY}".encode())


class Server:
    """A server that answers with the given bytes and records the requests."""

    def __init__(self):
        self.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
        self.requests = []
        self.connections = 0
        self.delay_seconds = 0.0
        self.is_closing = False  # whether it closes the connection after each answer

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        async with server:
            yield self

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                await asyncio.sleep(self.delay_seconds)
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                await writer.drain()
                if self.is_closing:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def status(code, *, body=b"", headers=b""):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n%b" % (code, len(body), headers, body)


@pytest.fixture
async def server():
    async with Server().running() as running:
        yield running


@asynccontextmanager
async def open_provider(url, *, private_upstreams=True):
    provider = Provider(url, private_upstreams=private_upstreams, clock=SystemClock())
    try:
        yield provider
    finally:
        await provider.close()


@pytest.fixture
async def provider(server):
    async with open_provider(server.url) as one:
        yield one


async def ask(provider, **more):
    return await provider.ask("/stat", "modelId=a%2Fb", [AUTHORIZATION], **more)


async def test_a_question_is_asked_as_it_was_put(server, provider):
    answer = await ask(provider)
    assert (answer.status, answer.body) == (200, b"{}")
    line, *fields = server.requests[0].lower().splitlines()
    assert line == "get /stat?modelid=a%2fb http/1.1"
    assert f"host: 127.0.0.1:{server.port}" in fields
    assert f"authorization: bearer {KEY}" in fields
    assert "accept-encoding: identity" in fields
    assert not any(field.startswith(("cookie", "user-agent: python")) for field in fields)


@pytest.mark.parametrize("code", [200, 401, 402, 403, 404, 423, 400, 418])
async def test_a_status_that_decides_something_is_an_answer(server, provider, code):
    server.answers = [status(code, body=b"{}")]
    for _ in range(8):
        assert (await ask(provider)).status == code
    assert not provider.is_left_alone


@pytest.mark.parametrize("code", [301, 302, 307, 308, 408, 425, 429, 500, 501])
async def test_a_status_that_one_caller_can_provoke_is_undecided_and_shuts_nobody_out(server, provider, code):
    server.answers = [status(code, headers=b"Location: /elsewhere\r\n")]
    for _ in range(8):
        with pytest.raises(Unavailable) as caught:
            await ask(provider)
        assert caught.value.reason is Reason.UPSTREAM_UNDECIDED
    assert not provider.is_left_alone
    assert len(server.requests) == 8


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_what_fails_for_strangers_stops_nobody_who_is_known(server, provider, code):
    server.answers = [status(code)]
    for _ in range(8):
        with pytest.raises(Unavailable):
            await ask(provider, is_unknown_key=True)
    assert (provider.is_left_alone, provider.is_left_alone_by_unknown_keys) == (False, True)
    assert len(server.requests) == 5
    server.answers = [status(200, body=b"{}")]
    assert (await ask(provider)).status == 200


@pytest.mark.parametrize("is_unknown_key", [False, True])
async def test_a_provider_that_asks_for_fewer_questions_is_left_alone_by_strangers_only(
    server, provider, is_unknown_key
):
    server.answers = [status(429)]
    with pytest.raises(Unavailable):
        await ask(provider, is_unknown_key=is_unknown_key)
    assert (provider.is_left_alone, provider.is_left_alone_by_unknown_keys) == (False, True)
    for _ in range(8):
        with pytest.raises(Unavailable):
            await ask(provider, is_unknown_key=True)
    assert len(server.requests) == 1
    for _ in range(8):
        with pytest.raises(Unavailable):
            await ask(provider)
    assert len(server.requests) == 9


@pytest.mark.parametrize("code", [502, 503, 504])
async def test_a_provider_that_fails_is_left_alone_and_tried_again(server, provider, code):
    server.answers = [status(code)]
    for _ in range(8):
        with pytest.raises(Unavailable):
            await ask(provider)
    assert provider.is_left_alone
    assert len(server.requests) == 5
    assert provider.outcomes == {"failed": 5, "not-asked": 3}
    server.answers = [status(200, body=b"{}")]
    await asyncio.sleep(1.05)
    assert (await ask(provider)).status == 200
    assert not provider.is_left_alone


async def test_a_question_that_takes_too_long_is_undecided(server, provider):
    server.delay_seconds = 1.0
    with pytest.raises(Unavailable, match="too long"):
        await ask(provider, seconds=0.05)
    assert provider.outcomes == {"failed": 1}


async def test_a_question_that_was_given_up_leaves_the_way_free(server, provider):
    server.delay_seconds = 1.0
    task = asyncio.create_task(ask(provider))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.delay_seconds = 0.0
    assert (await ask(provider)).status == 200


async def test_a_crowd_that_waits_for_its_turn_shuts_nobody_out(server, monkeypatch):
    monkeypatch.setattr(provider_module, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(provider_module, "SLOT_WAIT_SECONDS", 0.05)
    server.delay_seconds = 0.3
    async with open_provider(server.url) as provider:
        results = await asyncio.gather(*(ask(provider) for _ in range(12)), return_exceptions=True)
        assert sum(isinstance(one, Unavailable) for one in results) == 10
        assert provider.outcomes == {"answered": 2, "given-up": 10}
        assert not provider.is_left_alone
        assert len(server.requests) == 2
        assert (await ask(provider)).status == 200


async def test_a_question_without_a_whole_turn_says_nothing_of_the_provider(server, monkeypatch):
    monkeypatch.setattr(provider_module, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(provider_module, "SLOT_WAIT_SECONDS", 0.3)
    server.delay_seconds = 0.2
    async with open_provider(server.url) as provider:
        whole = asyncio.create_task(ask(provider))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await ask(provider, seconds=0.4)
        await whole
        assert provider.outcomes == {"answered": 1, "given-up": 1}


async def test_a_question_that_gets_no_connection_is_given_up(server, monkeypatch):
    monkeypatch.setattr(provider_module, "MAX_CONNECTIONS", 1)
    async with open_provider(server.url) as provider:
        provider._slots = asyncio.Semaphore(100)  # as if connections were returned late
        server.delay_seconds = 0.5
        first = asyncio.create_task(ask(provider))
        await asyncio.sleep(0.1)
        monkeypatch.setattr(provider_module, "ASK_SECONDS", 0.1)
        results = await asyncio.gather(*(ask(provider) for _ in range(8)), return_exceptions=True)
        assert {type(one) for one in results} == {Unavailable}
        assert (await first).status == 200
        assert provider.outcomes == {"answered": 1, "given-up": 8}


async def test_a_server_that_is_not_there_is_undecided():
    port = free_port()
    async with open_provider(f"http://127.0.0.1:{port}") as provider:
        with pytest.raises(Unavailable):
            await ask(provider)


async def test_an_answer_without_end_is_cut_short(server, provider):
    server.answers = [status(200, body=b" " * (MAX_ANSWER_BYTES + 1))]
    with pytest.raises(Unavailable, match="larger"):
        await ask(provider)


async def test_an_encoded_answer_is_none(server, provider):
    server.answers = [status(200, body=b"{}", headers=b"Content-Encoding: gzip\r\n")]
    with pytest.raises(Unavailable, match="encoded"):
        await ask(provider)


async def test_a_cookie_is_not_kept(server, provider):
    server.answers = [status(200, body=b"{}", headers=b"Set-Cookie: a=b\r\n")]
    await ask(provider)
    await ask(provider)
    assert "cookie" not in server.requests[1].lower()


async def test_nothing_that_a_failure_says_holds_the_key_or_the_question(server, provider):
    server.answers = [status(500, body=f"{KEY} modelId".encode())]
    with pytest.raises(Unavailable) as caught:
        await ask(provider)
    assert KEY not in f"{caught.value!r}{caught.value}{caught.value.__cause__!r}"
    assert "modelId" not in str(caught.value)


async def test_the_environments_proxy_is_not_asked(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with open_provider(server.url) as provider:
        assert (await ask(provider)).status == 200


async def test_a_private_provider_is_not_asked_unless_the_operator_says_so(server):
    async with open_provider(server.url, private_upstreams=False) as provider:
        with pytest.raises(Unavailable):
            await ask(provider)
        with pytest.raises(Unavailable):
            async with provider.open(f"{server.url}/file", []):
                pass
    assert server.connections == 0


async def test_the_address_that_was_judged_is_the_one_connected_to(server, monkeypatch):
    """A name that resolves differently the second time has no effect: it is resolved once."""
    asked = []

    def rebinding(host, port, *_, **__):
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "127.0.0.66"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with (
        open_provider("http://unused") as provider,
        provider.open(f"http://files.example:{server.port}/x", []) as stream,
    ):
        assert stream.status == 200
    assert [host for host in asked if host != "127.0.0.1"] == ["files.example"]
    assert f"Host: files.example:{server.port}".lower() in server.requests[0].lower()


async def test_an_address_that_does_not_answer_makes_room_for_the_next(server, monkeypatch):
    def two(host, port, *_, **__):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("127.0.0.66", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    async with (
        open_provider("http://unused") as provider,
        provider.open(f"http://files.example:{server.port}/x", []) as stream,
    ):
        assert stream.status == 200


async def test_a_file_comes_as_it_is(server, provider):
    server.answers = [status(206, body=b"x" * 100_000, headers=b"Content-Range: bytes 0-9/9\r\n")]
    async with provider.open(f"{server.url}/file?sig=s", [(b"range", b"bytes=0-9")]) as stream:
        assert stream.status == 206
        assert dict(stream.headers)[b"content-range"] == b"bytes 0-9/9"
        assert b"".join([piece async for piece in stream.aiter_raw()]) == b"x" * 100_000
    assert "range: bytes=0-9" in server.requests[0].lower()


async def test_no_connection_to_a_storage_is_used_for_another_file(server, provider):
    for _ in range(2):
        async with provider.open(f"{server.url}/file", [], method="HEAD") as stream:
            assert stream.status == 200
    assert server.connections == 2
    assert server.requests[0].startswith("HEAD /file ")


async def test_a_file_that_breaks_off_says_so(server, provider):
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"]
    server.is_closing = True
    async with provider.open(f"{server.url}/file", []) as stream:
        with pytest.raises(Unavailable, match="broke off"):
            _ = [piece async for piece in stream.aiter_raw()]


@pytest.mark.parametrize(("least", "is_enough"), [(1000, True), (100_000, False)])
async def test_a_storage_that_hardly_sends_is_cut_off(monkeypatch, least, is_enough):
    monkeypatch.setattr(provider_module, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(provider_module, "LEAST_BYTES", least)

    is_done = asyncio.Event()

    async def trickle(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15000\r\n\r\n")
        for _ in range(15):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.02)
        writer.close()
        is_done.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as running:
        url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}/file"
        async with open_provider(url) as provider, provider.open(url, []) as stream:
            if is_enough:
                assert sum([len(piece) async for piece in stream.aiter_raw()]) == 15000
            else:
                with pytest.raises(Unavailable, match="slowly"):
                    _ = [piece async for piece in stream.aiter_raw()]
        await is_done.wait()


async def test_a_client_that_reads_slowly_is_not_held_against_the_storage(server, provider, monkeypatch):
    monkeypatch.setattr(provider_module, "SLOW_SECONDS", 0.1)
    server.answers = [status(200, body=b"x" * 200_000)]
    async with provider.open(f"{server.url}/file", []) as stream:
        async for _ in stream.aiter_raw():
            await asyncio.sleep(0.06)


async def test_a_redirect_within_the_storage_is_followed(server, provider):
    server.answers = [status(302, headers=b"Location: /moved?x=1\r\n"), status(200, body=b"here")]
    async with provider.open(f"{server.url}/file", []) as stream:
        assert stream.status == 200
    assert server.requests[1].startswith("GET /moved?x=1 ")


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:1/x", "https://127.0.0.1/x", "//elsewhere.example/x", "file:///etc/passwd", ""],
)
async def test_a_redirect_to_another_place_is_not_followed(server, provider, location):
    server.answers = [status(302, headers=f"Location: {location}\r\n".encode())]
    with pytest.raises(Unavailable, match="another place"):
        async with provider.open(f"{server.url}/file", []):
            pass
    assert len(server.requests) == 1


async def test_redirects_end(server, provider):
    server.answers = [status(302, headers=b"Location: /again\r\n")]
    with pytest.raises(Unavailable, match="circles"):
        async with provider.open(f"{server.url}/file", []):
            pass
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://x/y", "http://user@127.0.0.1/x", "http:///x", "/x", "http://[", "http://\x00"),
        *("http://xn--/x", "http://xn--a-ecp.ru/x", "http://a..b/x", "http://" + "a" * 300 + "/x"),
    ],
)
async def test_what_is_no_plain_url_is_not_opened(provider, url):
    with pytest.raises(Unavailable):
        async with provider.open(url, []):
            pass


async def test_a_question_takes_less_time_than_its_own_client_waits():
    assert provider_module.ASK_SECONDS < 5
