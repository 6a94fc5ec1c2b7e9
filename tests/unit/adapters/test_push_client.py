"""The connection of push: what it connects to, how long, and what it makes of an answer."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

from gateway.adapters.push_client import MOST_ANSWER_BYTES, PushClient
from gateway.model.errors import Misconfigured, Unavailable
from tests.certificates import write_certificate

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@asynccontextmanager
async def answering(answer, *, context=None):
    """A server that reads one request on each connection and writes this; None: nothing at all."""
    requests = []

    async def serve(reader, writer):
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is not None:
            writer.write(answer)
            await writer.drain()
        else:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def post(port, scheme="http", host="127.0.0.1", **more):
    client = PushClient(f"{scheme}://{host}:{port}/in", **more)
    try:
        return await client.post(b"{}\n", {"cachegate-delivery": "d"})
    finally:
        await client.close()


async def test_the_body_goes_to_the_url_with_the_headers():
    async with answering(OK) as (port, requests):
        assert (await post(port, may_be_plain=True)).status == 204
    assert requests[0].startswith(b"POST /in HTTP/1.1\r\n")
    assert b"cachegate-delivery: d" in requests[0]


async def test_a_redirect_is_an_answer_and_is_not_followed():
    async with answering(OK) as (other, elsewhere):
        moved = b"HTTP/1.1 308 Moved\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n" % other
        async with answering(moved) as (port, _):
            assert (await post(port, may_be_plain=True)).status == 308
        assert elsewhere == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"7", 7.0), (b"99999999999", 999999.0), (b"soon", None), (b"-1", None), (b"", None),
     (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)  # fmt: skip
async def test_retry_after_is_read_in_both_of_its_forms(text, seconds):
    busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: %b\r\n\r\n" % text
    async with answering(busy) as (port, _):
        answer = await post(port, may_be_plain=True)
    assert (answer.status, answer.retry_after_seconds) == (503, seconds)


async def test_of_a_large_answer_no_more_is_read_than_the_bound():
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + bytes(4 * MOST_ANSWER_BYTES)
    async with answering(endless) as (port, _):
        assert (await post(port, may_be_plain=True)).status == 200


async def test_a_target_that_never_answers_is_given_up():
    async with answering(None) as (port, _):
        with pytest.raises(Unavailable):
            await post(port, may_be_plain=True, seconds=0.05)


async def test_the_certificate_is_verified_by_the_ca_that_was_given(tmp_path):
    for name in ("ours", "other"):
        write_certificate(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ours.pem", tmp_path / "ours.key")
    async with answering(OK, context=context) as (port, requests):
        answer = await post(port, "https", "localhost", ca_file=tmp_path / "ours.pem")
        assert answer.status == 204
        for wrong in ({"ca_file": tmp_path / "other.pem"}, {}):
            with pytest.raises(Unavailable):
                await post(port, "https", "localhost", **wrong)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "url",
    ["http://siem.example/", "ftp://siem.example/", "https://u:p@siem.example/", "https:///x",
     "https://a/#b", "x"],
)  # fmt: skip
def test_other_urls_are_refused_and_not_repeated(url):
    with pytest.raises(Misconfigured) as caught:
        PushClient(url)
    assert "siem.example" not in str(caught.value)
