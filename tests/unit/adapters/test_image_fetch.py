from __future__ import annotations

import asyncio
import base64
import gzip
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.adapters import image_fetch
from gateway.adapters.image_fetch import MAX_FETCHES_OF_TENANT, MAX_REDIRECTS, ImageFetcher
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_IMAGE_URLS
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio

IMAGE = b"\x89PNG bytes of an image"
ENCODED = base64.b64encode(IMAGE).decode()


def answer(code=200, body=IMAGE, headers=b""):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%b\r\n%b" % (code, len(body), headers, body)


def redirect(target):
    return answer(302, b"", b"Location: %b\r\n" % target.encode())


class Server:
    """Sends the bytes that belong to a path, and keeps what it was asked."""

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.has_come = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    @asynccontextmanager
    async def running(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.host = f"http://127.0.0.1:{self.port}"
        async with server:
            yield self

    async def _serve(self, reader, writer):
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            self.has_come.set()
            await self.may_answer.wait()
            writer.write(self.answers.get(request.split(" ")[1], answer()))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def server():
    async with Server().running() as running:
        yield running


@pytest.fixture
async def fetcher():
    one = ImageFetcher(private_addresses=True)
    yield one
    await one.close()


async def refused(fetcher, urls, hosts):
    with pytest.raises(Refusal) as caught:
        await fetcher.fetch(urls, hosts)
    assert caught.value.__cause__ is None
    assert not any(url in str(caught.value) for url in urls if url)
    return caught.value.reason


async def test_images_come_in_base64_in_order(server, fetcher):
    server.answers["/b"] = answer(body=b"other")
    urls = [f"{server.host}/a?sig=secret", f"{server.host}/b"]
    assert await fetcher.fetch(urls, [server.host]) == [ENCODED, base64.b64encode(b"other").decode()]
    assert server.requests[0].startswith("GET /a?sig=secret HTTP/1.1\r\n")
    names = [line.partition(":")[0].lower() for line in server.requests[0].split("\r\n")[1:] if line]
    assert sorted(names) == ["accept", "accept-encoding", "host", "user-agent"]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://localhost:{port}/a",
            "https://127.0.0.1:{port}/a",
            "http://127.0.0.1/a",
            "http://127.0.0.1:{port}1/a",
        ),
        *("http://user@127.0.0.1:{port}/a", "http://127.0.0.1:{port}@evil.example/", "//127.0.0.1:{port}/a"),
        *("http://2130706433:{port}/a", "http://0x7f.1:{port}/a", "http://[::ffff:127.0.0.1]:{port}/a"),
        *(
            "ftp://127.0.0.1:{port}/a",
            "file:///etc/hostname",
            "/etc/hostname",
            "",
            "http://",
            "gopher://127.0.0.1:{port}",
        ),
        *(
            "http://127.0.0.1:{port}\\@evil.example/",
            "http://evil.example#@127.0.0.1:{port}/",
            "http://127.0.0.1.:{port}/",
        ),
        *(
            "http://127.0.0.1:{port}/\r\nx: y",
            "http://127.0.0.1:{port}/" + "x" * 9000,
            "http://127.0.0.1:99999/",
        ),
        *(
            "http://127.0.0.1%00:{port}/",
            "http://127.0.0.1:{port}%2f@evil.example/",
            "http://\ud800/",
            "data:,x",
        ),
    ],
)
async def test_a_url_of_another_host_is_refused_before_anything_is_sent(server, fetcher, url):
    urls = [f"{server.host}/first", url.replace("{port}", str(server.port))]
    assert await refused(fetcher, urls, [server.host]) is Reason.FORBIDDEN_IMAGE
    assert server.requests == []


async def test_without_hosts_nothing_is_fetched(server, fetcher):
    assert await refused(fetcher, [f"{server.host}/a"], ()) is Reason.FORBIDDEN_IMAGE
    assert server.requests == []


async def test_a_host_that_is_listed_for_https_is_not_asked_in_plain_text(server, fetcher):
    assert (
        await refused(fetcher, [f"{server.host}/a"], [f"127.0.0.1:{server.port}"]) is Reason.FORBIDDEN_IMAGE
    )
    assert server.requests == []


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"]
)
async def test_no_list_opens_a_private_address(server, name):
    host = f"http://{name}:{server.port}"
    fetcher = ImageFetcher()
    assert await refused(fetcher, [f"{host}/a"], [host]) is Reason.IMAGE_NOT_FETCHED
    await fetcher.close()
    assert server.requests == []


async def test_a_name_is_resolved_once_and_the_checked_address_is_connected_to(server, monkeypatch):
    answers = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]]
    asked = []

    async def resolve(host, port, **_more):
        asked.append(host)
        found = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    host = f"http://images.example:{server.port}"
    fetcher = ImageFetcher(private_addresses=True)
    assert await fetcher.fetch([f"{host}/a"], [host]) == [ENCODED]
    assert asked == ["images.example"]
    assert f"host: images.example:{server.port}" in server.requests[0].lower()
    for _ in range(2):  # the name leads elsewhere the second time; or to both
        assert await refused(fetcher, [f"{host}/a"], [host]) is Reason.IMAGE_NOT_FETCHED
    assert len(server.requests) == 1
    await fetcher.close()


async def test_a_redirect_within_the_list_is_followed(server, fetcher):
    server.answers["/a"] = redirect("/b")
    server.answers["/b"] = redirect(f"{server.host}/c")
    assert await fetcher.fetch([f"{server.host}/a"], [server.host]) == [ENCODED]


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/",
        "//evil.example/",
        "https://127.0.0.1/",
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "http://[",
    ],
)
async def test_a_redirect_to_another_host_is_refused(server, fetcher, target):
    server.answers["/a"] = redirect(target)
    assert await refused(fetcher, [f"{server.host}/a"], [server.host]) is Reason.FORBIDDEN_IMAGE
    assert len(server.requests) == 1


async def test_a_redirect_to_a_listed_host_at_a_forbidden_address_is_not_followed(server, monkeypatch):
    async def resolve(host, port, **_more):
        address = {"public.example": "127.0.0.1", "inside.example": "169.254.169.254"}[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    public, inside = (f"http://{name}.example:{server.port}" for name in ("public", "inside"))
    server.answers["/a"] = redirect(f"{inside}/b")
    fetcher = ImageFetcher(private_addresses=True)
    assert await refused(fetcher, [f"{public}/a"], [public, inside]) is Reason.IMAGE_NOT_FETCHED
    assert len(server.requests) == 1
    await fetcher.close()


async def test_redirects_end(server, fetcher):
    server.answers["/a"] = redirect("/a")
    assert await refused(fetcher, [f"{server.host}/a"], [server.host]) is Reason.IMAGE_NOT_FETCHED
    assert len(server.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "sent",
    [
        *(answer(404), answer(206), answer(500), answer(401), answer(body=b""), answer(302, b"")),
        answer(body=gzip.compress(b"\0" * 10_000_000), headers=b"Content-Encoding: gzip\r\n"),
        answer(headers=b"Content-Encoding: identity, gzip\r\n"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"not HTTP\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_whole_plain_image_is_not_passed_on(server, fetcher, sent):
    server.answers["/a"] = sent
    assert await refused(fetcher, [f"{server.host}/a"], [server.host]) in {
        Reason.IMAGE_NOT_FETCHED,
        Reason.FORBIDDEN_IMAGE,
    }


async def test_bytes_of_an_image_and_of_a_request_are_bounded(server, fetcher, monkeypatch):
    monkeypatch.setattr(image_fetch, "MAX_IMAGE_BYTES", len(IMAGE))
    monkeypatch.setattr(image_fetch, "MAX_REQUEST_BYTES", 2 * len(IMAGE) + 1)
    url = f"{server.host}/a"
    assert await fetcher.fetch([url, url], [server.host]) == [ENCODED, ENCODED]
    assert await refused(fetcher, [url] * 3, [server.host]) is Reason.IMAGE_NOT_FETCHED
    server.answers["/long"] = answer(body=IMAGE + b"x")
    assert await refused(fetcher, [f"{server.host}/long"], [server.host]) is Reason.IMAGE_NOT_FETCHED
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n12345678\r\n" * 10
    server.answers["/endless"] = endless
    assert await refused(fetcher, [f"{server.host}/endless"], [server.host]) is Reason.IMAGE_NOT_FETCHED


async def test_more_images_than_a_request_may_have_are_refused(server, fetcher):
    urls = [f"{server.host}/a"] * (MAX_IMAGE_URLS + 1)
    assert await refused(fetcher, urls, [server.host]) is Reason.IMAGE_NOT_FETCHED
    assert server.requests == []


async def test_a_server_that_does_not_answer_is_given_up(server, fetcher, monkeypatch):
    monkeypatch.setattr(image_fetch, "FETCH_SECONDS", 0.05)
    server.may_answer.clear()
    assert await refused(fetcher, [f"{server.host}/a"], [server.host]) is Reason.IMAGE_NOT_FETCHED


async def test_a_server_that_sends_byte_by_byte_is_given_up(fetcher, monkeypatch):
    monkeypatch.setattr(image_fetch, "FETCH_SECONDS", 0.2)

    has_ended = asyncio.Event()

    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            if reader.at_eof():  # the client has left
                break
            writer.write(b"x")
            await asyncio.sleep(0.02)  # sooner than the bound for one read, and in all longer than the bound
        writer.close()
        has_ended.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await refused(fetcher, [f"{host}/a"], [host]) is Reason.IMAGE_NOT_FETCHED
        await has_ended.wait()


async def test_a_tenant_with_a_slow_host_leaves_room_for_others(server, fetcher):
    server.may_answer.clear()
    url, slow, other = f"{server.host}/a", TenantId("slow"), TenantId("other")
    held = [
        asyncio.ensure_future(fetcher.fetch([url], [server.host], tenant=slow))
        for _ in range(MAX_FETCHES_OF_TENANT)
    ]
    await server.has_come.wait()
    with pytest.raises(Refusal) as caught:
        await fetcher.fetch([url], [server.host], tenant=slow)
    assert caught.value.reason is Reason.IMAGE_NOT_FETCHED
    server.may_answer.set()
    assert await fetcher.fetch([url], [server.host], tenant=other) == [ENCODED]
    assert await asyncio.gather(*held) == [[ENCODED]] * MAX_FETCHES_OF_TENANT
    assert await fetcher.fetch([url], [server.host], tenant=slow) == [ENCODED]


async def test_a_client_that_leaves_ends_the_fetch_and_gives_its_slot_back(server, fetcher):
    server.may_answer.clear()
    fetching = asyncio.ensure_future(fetcher.fetch([f"{server.host}/a"], [server.host]))
    await server.has_come.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not fetcher._of_tenant
    assert not fetcher._slots.locked()
