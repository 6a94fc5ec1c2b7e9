"""Laws of the HTTP protocol: how bytes are split does not matter, and no more is accepted than by uvicorn.

The same bytes are fed whole, byte by byte and cut at random, with and without turns of the event loop in
between. Each time the same requests must be seen and the same answers written. The reference is uvicorn's
own protocol on the same parser. Where it refuses, ours refuses; where both accept, both see the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import dataclass, field

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.server.protocol import worker_protocol
from tests.examples import examples

REFUSED = re.compile(rb"HTTP/1\.1 4\d\d ")
# Whether the application has asked for a body before it breaks off is a matter of time.
VARYING = re.compile(rb"traceparent: [^\r]*\r\n|HTTP/1\.1 100 Continue\r\n\r\n(?=HTTP/1\.1 400 )")


@pytest.fixture(autouse=True)
def _no_warnings_of_the_reference():
    logger = logging.getLogger("uvicorn.error")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


# What both protocols are connected to


@dataclass
class Wire:
    """A transport that keeps what is written."""

    written: bytearray = field(default_factory=bytearray)
    is_reading: bool = True
    is_closed: bool = False

    def write(self, data):
        if not self.is_closed:
            self.written += data

    def close(self):
        self.is_closed = True

    abort = close

    def write_eof(self):
        pass

    def can_write_eof(self):
        return True

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

    def get_extra_info(self, name):
        return {"peername": ("127.0.0.1", 4711), "sockname": ("127.0.0.1", 80)}.get(name)


def shown(method, path, query, headers, body):
    fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]
    return json.dumps([method, path.decode(), query.decode(), fields, body.decode("latin-1")])


class App:
    """Reads each request to its end, and answers with what it saw of it."""

    def __init__(self):
        self.seen = []

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        request = shown(scope["method"], scope["raw_path"], scope["query_string"], scope["headers"], body)
        self.seen.append(request)
        answer = request.encode()
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Core:
    """Answers at once just as `App` does, but for every third request, which it passes on."""

    def __init__(self, app):
        self.app = app
        self.taken = []
        self.count = 0

    def take(self, request, connection):
        if not self.taken:
            asyncio.get_running_loop().call_soon(self.finish)
        self.taken.append((request, connection))

    def finish(self):
        taken, self.taken = self.taken, []
        for request, connection in taken:
            self.count += 1
            if self.count % 3 == 0 or not connection.may_answer:
                connection.pass_on()
                continue
            path, _, query = request.target.partition(b"?")
            method = request.method.decode()
            seen = shown(method, path, query, request.headers, b"")
            self.app.seen.append(seen)
            answer = seen.encode()
            head = b"content-length: %d\r\n\r\n" % len(answer)
            connection.answer(200, head, b"" if method == "HEAD" else answer)


@dataclass(frozen=True)
class Outcome:
    """What came of some bytes."""

    seen: tuple[str, ...]
    written: bytes
    is_closed: bool

    @property
    def is_refused(self):
        return REFUSED.search(self.written) is not None


def outcome(protocol_class, pieces, *, with_core=False, turns=2):
    """Feed the pieces, each once the protocol reads, with so many turns of the event loop after each."""

    async def scenario():
        app, wire = App(), Wire()
        kind = (
            worker_protocol(at_once=Core(app) if with_core else None)
            if protocol_class is None
            else protocol_class
        )
        config = uvicorn.Config(app, http=kind, ws="none", lifespan="off", log_config=None)
        config.load()
        protocol = kind(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(wire)
        for piece in pieces:
            while not (wire.is_reading or wire.is_closed):  # noqa: ASYNC110 -- a transport has no event
                await asyncio.sleep(0)
            if wire.is_closed:
                break
            protocol.data_received(piece)
            for _ in range(turns):
                await asyncio.sleep(0)
        state, quiet = None, 0
        while quiet < 8:
            await asyncio.sleep(0)
            now = len(wire.written), len(app.seen), wire.is_closed
            state, quiet = now, quiet + 1 if now == state else 0
        found = Outcome(tuple(app.seen), VARYING.sub(b"", bytes(wire.written)), wire.is_closed)
        protocol.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        return found

    return asyncio.run(scenario())


# Bytes that clients, and attackers, send

TARGETS = [b"/", b"/a", b"/a?b=c", b"/%41%2fb", b"//x", b"/a;b//c", b"/a?b?c", b"/a?", b"http://h/a?b", b"*"]
BAD_TARGETS = [
    b"/a#b",
    b"http://h",
    b"http://h?a",
    b"a",
    b"/\xff",
    b"/a b",
    b"",
    b"http://",
    b"/\x7f",
    b"h:1",
]
PLAIN_LINES = [
    b"Accept: */*\r\n", b"accept:x\r\n", b"X-A:   padded  \r\n", b"Cookie: a=b; c\r\n", b"Empty:\r\n",
    b"Range: bytes=0-9\r\n", b"X-Obs: \xe9\r\n", b"Connection: keep-alive\r\n",
    b"Authorization: Bearer k\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n",
    b"Expect: nonsense\r\n", b"TE: trailers\r\n",
]  # fmt: skip
BAD_LINES = [
    b"a : b\r\n", b" folded\r\n", b"\tfolded\r\n", b"bare: lf\n", b"bare: cr\rx: y\r\n", b"nul: a\x00b\r\n",
    b"no colon\r\n", b": no name\r\n", b"Host: b\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: +3\r\n", b"Content-Length: 3, 3\r\n", b"Content-Length : 3\r\n", b"Content-Length:\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, gzip\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"\x01: a\r\n", b"\r\n", b"\n",
]  # fmt: skip
METHODS = [b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS"]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: s\r\n\r\n"
CONTENTS = st.sampled_from([b"", b"x", b"hello", b"0\r\n\r\n", SMUGGLED])


@st.composite
def chunked(draw):
    pieces = draw(st.lists(CONTENTS.filter(bool), max_size=3))
    extension = draw(st.sampled_from([b"", b"", b";a=b", b';a="b"']))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailers = draw(st.sampled_from([b"", b"", b"X-Trailer: late\r\n", b"Authorization: Bearer late\r\n"]))
    return b"0\r\n".join([chunks, trailers + b"\r\n"])


@st.composite
def requests(draw, lines=PLAIN_LINES, targets=TARGETS, versions=(b"1.1",)):
    head = b"%b %b HTTP/%b\r\n" % (
        draw(st.sampled_from(METHODS)), draw(st.sampled_from(targets)), draw(st.sampled_from(versions)),
    )  # fmt: skip
    fields = [b"Host: x\r\n", *draw(st.lists(st.sampled_from(lines), max_size=4))]
    content = draw(st.one_of(st.none(), CONTENTS, chunked().map(lambda text: (text,))))
    if isinstance(content, tuple):
        fields.append(b"Transfer-Encoding: chunked\r\n")
        [content] = content
    elif content is not None:
        fields.append(b"Content-Length: %d\r\n" % len(content))
    return head + b"".join(draw(st.permutations(fields))) + b"\r\n" + (content or b"")


good_requests = requests()
odd_requests = st.one_of(
    requests(),
    requests(lines=PLAIN_LINES + BAD_LINES),
    requests(lines=BAD_LINES),
    requests(targets=TARGETS + BAD_TARGETS, versions=(b"1.1", b"1.0", b"0.9", b"1.2", b"2.0")),
    st.sampled_from([b"garbage\r\n\r\n", b"\r\n", b"\r\n\r\n", SMUGGLED, b"GET / HTTP/1.1\r\n"]),
)
good_streams = st.lists(good_requests, min_size=1, max_size=5).map(b"".join)
odd_streams = st.lists(odd_requests, min_size=1, max_size=4).map(b"".join)


@st.composite
def broken_streams(draw):
    """A byte is changed, left out or put in."""
    stream = draw(odd_streams)
    place = draw(st.integers(0, len(stream)))
    left_out = draw(st.integers(0, 2))
    put_in = draw(st.sampled_from([b"", b"\r", b"\n", b"\x00", b" ", b":", b"\xff", b"0", b"\r\n\r\n"]))
    return stream[:place] + put_in + stream[place + left_out :]


STREAMS = st.one_of(good_streams, odd_streams, broken_streams())
FRAMINGS = (
    b"Content-Length: 3\r\nContent-Length: 4\r\n", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"A: b\r\n folded\r\n", b"A: b\nC: d\r\n",
    b"A : b\r\n", b"Expect: 100-continue\r\nContent-Length: 3\r\n", b"Content-Length: 3\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n",
)  # fmt: skip


def every_framing(test):
    """Each shape once as an explicit example, so that none depends on chance."""
    for framing in FRAMINGS:
        for method in (b"GET", b"POST"):
            stream = method + b" /outer HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n" + b"abc" + SMUGGLED
            test = example(stream=SMUGGLED + stream, data=None)(test)
    whole = b"GET http://h/a?b HTTP/1.1\r\nHost: x\r\n\r\n"
    trailers = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: late\r\n\r\n"
    )
    return example(stream=whole + trailers + SMUGGLED + b"garbage\r\n\r\n", data=None)(test)


def cut(stream, places):
    ends = [*sorted({place for place in places if place < len(stream)} - {0}), len(stream)]
    return [stream[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@every_framing
@given(stream=STREAMS, data=st.data())
@settings(deadline=None, max_examples=examples(150))
def test_how_the_bytes_are_split_does_not_matter(stream, data):
    whole = outcome(None, [stream], with_core=True)
    places = [] if data is None else data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    for pieces in ([bytes([byte]) for byte in stream], cut(stream, places)):
        for turns in (0, 2):
            assert outcome(None, pieces, with_core=True, turns=turns) == whole


@every_framing
@given(stream=STREAMS, data=st.none())
@settings(deadline=None, max_examples=examples(150))
def test_what_is_answered_at_once_is_answered_as_by_the_application(stream, data):
    assert outcome(None, [stream], with_core=True) == outcome(None, [stream])


@every_framing
@given(stream=STREAMS, data=st.none())
@settings(deadline=None, max_examples=examples(300))
def test_no_more_is_accepted_than_the_reference_accepts(stream, data):
    ours, theirs = outcome(None, [stream]), outcome(HttpToolsProtocol, [stream])
    if ours.is_refused:
        # uvicorn answers a bad request before the earlier ones, and closes: they are never seen by it.
        if not theirs.is_refused:
            assert ours.seen == without_trailers(theirs)[: len(ours.seen)]
        return
    is_ended = b"connection: close\r\n" in ours.written
    if theirs.is_refused:
        assert is_ended  # what follows the last request is not parsed by ours
        return
    assert ours.seen == without_trailers(theirs)
    if b"late" not in stream and b"connection: upgrade" not in stream.lower():
        assert ours.written == theirs.written
        assert ours.is_closed == theirs.is_closed
    # uvicorn keeps a connection open on which it ignored an upgrade, but reads nothing more from it.
    assert ours.is_closed == is_ended


def without_trailers(found):
    """uvicorn adds trailers to the headers of a request that has begun already."""
    seen = [json.loads(request) for request in found.seen]
    return tuple(
        json.dumps([method, path, query, [one for one in fields if not one[1].endswith("late")], body])
        for method, path, query, fields, body in seen
    )


@given(stream=good_streams)
@settings(deadline=None, max_examples=examples(100))
def test_what_is_good_is_accepted_by_both(stream):
    ours, theirs = outcome(None, [stream]), outcome(HttpToolsProtocol, [stream])
    assert not ours.is_refused
    assert ours.seen == without_trailers(theirs)
    assert len(ours.seen) > 0
