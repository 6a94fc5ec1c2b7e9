"""Every form of answer through ASGI: its messages, its headers, and what the meter is told."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import pytest

from gateway.delivery.steps import READ_BYTES
from gateway.middleware.meter import Meter
from gateway.middleware.sending import send_answer, send_whole
from gateway.model.answers import Answer, FileParts, Span, Streamed
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.header_block import Headers
from gateway.model.names import FileHandle, ModelId, PackageId
from gateway.model.pins import identity_of
from gateway.model.verdicts import Ending, OpenFile, Receipt
from gateway.problems import problem_of
from tests import samples

pytestmark = pytest.mark.anyio

PRINCIPAL = samples.principal(tenant=None)
CONTENT = bytes(range(256)) * 16
HEADERS = Headers.of((b"x", b"y"))
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def receipt(method="GET"):
    request = samples.wire_request(method=method, route="/f/{file}", trace_id=TRACE_ID)
    admission = samples.admission(PRINCIPAL, request=request)
    return Receipt(record_id="r" * 36, admission=admission, on_close=lambda outcome: None)


@dataclass
class Sent:
    """The server's side of one answer."""

    meter: Meter = field(default_factory=lambda: Meter(0.0))
    messages: list = field(default_factory=list)
    fails_at: int | None = None  # the message at which the connection is gone

    async def send(self, message):
        if len(self.messages) == self.fails_at:
            raise ConnectionResetError
        self.messages.append(message)

    async def receive(self):
        await asyncio.Event().wait()

    async def answer(self, answer, method="GET", decided=None):
        """`decided`: the method that was decided about, where the request asks about another one."""
        scope = {"method": method}
        await send_answer(answer, receipt(decided or method), self.meter, scope, self.receive, self.send)
        return self

    @property
    def headers(self):
        return self.messages[0]["headers"]

    @property
    def body(self):
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def is_complete(self):
        assert all(message["more_body"] for message in self.messages[1:-1])
        return not self.messages[-1]["more_body"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield OpenFile(
        descriptor=descriptor,
        size=len(CONTENT),
        identity=identity_of(path.stat()),
        model=ModelId("acme/cars/1"),
        package=PackageId("p"),
        handle=FileHandle("f.bin"),
        md5=None,
        sha256="1" * 64,
    )
    os.close(descriptor)


async def unasked(file, *, md5, sha256):
    raise AssertionError("this file is pinned")


def parts(file, *pieces, on_hashed=unasked):
    length = sum(one.count if isinstance(one, Span) else len(one) for one in pieces)
    return Answer(200, HEADERS, FileParts(file=file, pieces=pieces, length=length, on_hashed=on_hashed))


@dataclass
class Stream:
    """A body from elsewhere, which knows how often it was closed."""

    pieces: tuple
    length: int | None = None
    error: Exception | None = None
    closed: int = 0

    async def come(self):
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error

    async def close(self):
        self.closed += 1

    def answer(self):
        body = Streamed(pieces=self.come(), length=self.length, close=self.close, ending=Ending.RELAYED)
        return Answer(200, HEADERS, body)


async def test_a_whole_answer_is_bound_to_its_record_and_trace():
    sent = await Sent().answer(Answer(203, HEADERS, b"body"))
    assert [message["type"] for message in sent.messages] == ["http.response.start", "http.response.body"]
    assert (sent.messages[0]["status"], sent.body, sent.is_complete) == (203, b"body", True)
    own, record, trace = sent.headers
    assert (own, record) == ((b"x", b"y"), (b"cachegate-record", b"r" * 36))
    assert (trace[0], trace[1][:36]) == (b"traceparent", b"00-%b-" % TRACE_ID.encode())
    assert sent.meter.cut is None


async def test_parts_and_streams_are_bound_to_their_record_as_well(file):
    for answer in (parts(file, Span(offset=0, count=9)), Stream((b"a",)).answer()):
        sent = await Sent().answer(answer)
        assert [name for name, _ in sent.headers] == [b"x", b"cachegate-record", b"traceparent"]


@pytest.mark.parametrize("length", [0, 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES, 3 * READ_BYTES + 5])
async def test_no_message_holds_more_than_one_read(length):
    body = (CONTENT * (length // len(CONTENT) + 1))[:length]
    sent = await Sent().answer(Answer(200, HEADERS, body))
    assert (sent.body, sent.is_complete) == (body, True)
    assert max(len(message["body"]) for message in sent.messages[1:]) <= READ_BYTES
    assert len(sent.messages) == 1 + max(1, -(-length // READ_BYTES))


async def test_head_has_the_same_headers_and_no_body():
    got, head = [await Sent().answer(Answer(200, HEADERS, b"body"), method) for method in ("GET", "HEAD")]
    assert head.headers[:2] == got.headers[:2]
    assert (got.body, head.body, head.is_complete) == (b"body", b"", True)


async def test_a_get_that_asks_about_a_head_has_its_body():
    """A proxy asks by GET whether it may serve a HEAD."""
    sent = await Sent().answer(Answer(503, HEADERS, b"content"), method="GET", decided="HEAD")
    assert sent.body == b"content"


async def test_what_somebody_else_sends_is_told_to_the_meter():
    sent = await Sent().answer(Answer(200, HEADERS, b"", Ending.HANDED_OFF))
    assert sent.meter.cut is Ending.HANDED_OFF


async def test_parts_are_the_bytes_between_and_of_the_file(file):
    pieces = (b"--a", Span(offset=3, count=5), b"--b", Span(offset=100, count=50), b"--")
    sent = await Sent().answer(parts(file, *pieces))
    assert sent.body == b"--a" + CONTENT[3:8] + b"--b" + CONTENT[100:150] + b"--"
    assert (sent.is_complete, sent.meter.cut, sent.meter.sha256) == (True, None, None)


async def test_parts_of_a_file_that_changed_before_the_first_byte_are_a_failure(file):
    os.truncate(f"/proc/self/fd/{file.descriptor}", 3)
    sent = Sent()
    with pytest.raises(Unavailable) as failure:
        await sent.answer(parts(file, Span(offset=0, count=2)))
    assert failure.value.reason is Reason.CHANGED_ON_DISK
    assert sent.messages == []


async def test_parts_of_a_file_that_changed_later_are_cut_and_the_meter_told(file):
    class Changing(Sent):
        async def send(self, message):
            await super().send(message)
            if message.get("body"):
                os.truncate(f"/proc/self/fd/{file.descriptor}", 3)

    sent = await Changing().answer(parts(file, Span(offset=0, count=9), Span(offset=0, count=9)))
    assert (sent.meter.cut, sent.body) == (Ending.CHANGED_ON_DISK, CONTENT[:9])
    assert sent.messages[-1]["more_body"]


def unpinned(file):
    return OpenFile(**{name: getattr(file, name) for name in file.__struct_fields__} | {"sha256": None})


async def quarantined(file, *, md5, sha256):
    raise Refusal(Reason.QUARANTINED)


async def unknown(file, *, md5, sha256):
    raise Unavailable("redis", "gone", Reason.NO_FACTS)


async def pinned(file, *, md5, sha256):
    pass


async def test_a_file_in_quarantine_before_its_first_byte_is_the_problem_and_nothing_of_it(file):
    answer = parts(unpinned(file), Span(offset=0, count=len(CONTENT)), on_hashed=quarantined)
    sent = await Sent().answer(answer)
    problem = problem_of(Reason.QUARANTINED, "/f/{file}").answer("r" * 36)
    assert (sent.messages[0]["status"], sent.body) == (404, problem.body)
    assert tuple(sent.headers[: len(problem.headers.pairs)]) == problem.headers.pairs
    assert sent.meter.cut is Ending.QUARANTINED


async def test_a_file_whose_pin_cannot_be_known_before_its_first_byte_is_a_failure(file):
    sent = Sent()
    with pytest.raises(Unavailable) as failure:
        await sent.answer(parts(unpinned(file), Span(offset=0, count=len(CONTENT)), on_hashed=unknown))
    assert failure.value.reason is Reason.NO_FACTS
    assert sent.messages == []


async def test_what_was_hashed_while_it_was_sent_is_told_to_the_meter(file):
    sent = await Sent().answer(parts(unpinned(file), Span(offset=0, count=len(CONTENT)), on_hashed=pinned))
    assert sent.body == CONTENT
    assert len(sent.meter.sha256) == 64


async def test_a_stream_is_sent_as_it_comes_and_closed():
    stream = Stream((b"first", b"second"))
    sent = await Sent().answer(stream.answer())
    assert (sent.body, sent.is_complete) == (b"firstsecond", True)
    assert (sent.meter.cut, stream.closed) == (Ending.RELAYED, 1)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
async def test_a_stream_whose_client_left_is_closed(fails_at):
    stream, sent = Stream((b"first", b"second")), Sent(fails_at=fails_at)
    if fails_at == 0:
        with pytest.raises(ConnectionResetError):
            await sent.answer(stream.answer())
    else:
        await sent.answer(stream.answer())
        assert sent.meter.cut is Ending.CLIENT_GONE
    assert stream.closed == 1


async def test_a_stream_that_fails_is_closed_and_the_failure_goes_on():
    stream = Stream((b"first",), error=Unavailable("upstream", "gone", Reason.UPSTREAM_UNDECIDED))
    with pytest.raises(Unavailable):
        await Sent().answer(stream.answer())
    assert stream.closed == 1


async def test_a_stream_whose_request_is_cancelled_is_closed():
    begun = asyncio.Event()

    class Slow(Stream):
        async def come(self):
            yield b"first"
            begun.set()
            await asyncio.Event().wait()

    stream = Slow(())
    task = asyncio.create_task(Sent().answer(stream.answer()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.closed == 1


async def test_only_what_is_in_memory_is_sent_whole(file):
    with pytest.raises(TypeError):
        await send_whole(parts(file, Span(offset=0, count=1)), (), "GET", None)
