"""The answers of the provider's storage, and what of them a client gets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from gateway.delivery.file_answer import RefusedFile
from gateway.middleware.meter import Meter
from gateway.middleware.sending import send_answer
from gateway.model.errors import Reason, Unavailable
from gateway.model.names import FileHandle, Md5, ModelId, PackageId
from gateway.model.verdicts import Ending, RelayedFile
from gateway.model_metadata.relay import STREAMS_OF_A_KEY, Relay
from tests import samples


class Storage:
    """Answers by a table of methods, and keeps the requests."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    @asynccontextmanager
    async def open(self, url, headers, *, method="GET"):
        self.asked.append((method, tuple(headers)))
        status, fields, pieces = self.answers[method]

        async def aiter_raw():
            for piece in pieces:
                yield piece

        yield SimpleNamespace(status=status, headers=tuple(fields.items()), aiter_raw=aiter_raw)


def sent(storage, **asked):
    """The result, the head and the body of one relay."""
    return asyncio.run(send_by(Relay(provider=storage, authorized_files=None, sealed=None), **asked))


async def send_by(relay, *, method="GET", headers=(), md5="0" * 32, is_gone=False, key_id="key_0123456789ab"):
    request = samples.wire_request(method=method, raw_path=b"/d/x", headers=headers, route="/d")
    found = RelayedFile(
        model=ModelId("acme/cars/1"),
        package=PackageId("pkgA1"),
        handle=FileHandle("weights.onnx"),
        md5=Md5(md5) if md5 else None,
        url="https://storage.example/w?X-Goog-Signature=5ecre7",
    )
    allowed = SimpleNamespace(access=SimpleNamespace(principal=SimpleNamespace(key_id=key_id)))
    admission = SimpleNamespace(found=found, request=request, allowed=allowed)
    receipt = SimpleNamespace(record_id="r", admission=admission)
    messages = []

    async def receive():
        if not is_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message):
        messages.append(message)
        await asyncio.sleep(0)

    answer = await relay.answer(receipt)
    if isinstance(answer, RefusedFile):
        return answer, None, b""
    meter = Meter(0.0)
    await send_answer(answer, receipt, meter, {"method": admission.request.method}, receive, send)
    result = meter.cut
    head = messages[0] if messages else None
    return result, head, b"".join(one.get("body", b"") for one in messages[1:])


def fields(head):
    return dict(head["headers"])


def test_a_whole_file_comes_with_its_length_and_the_last_piece_ends_it():
    storage = Storage(GET=(200, {b"content-length": b"4", b"accept-ranges": b"bytes"}, [b"ab", b"cd"]))
    result, head, body = sent(storage)
    assert (result, head["status"], body) == (Ending.RELAYED, 200, b"abcd")
    assert fields(head)[b"content-length"] == b"4"
    assert fields(head)[b"accept-ranges"] == b"bytes"


def test_a_file_without_a_length_ends_where_it_ends():
    result, head, body = sent(Storage(GET=(200, {}, [b"ab", b"cd"])))
    assert (result, body) == (Ending.RELAYED, b"abcd")
    assert b"content-length" not in fields(head)


@pytest.mark.parametrize("pieces", [[b"abc"], [], [b"abc", b"de"], [b"abcde"]])
def test_more_or_less_than_was_announced_is_cut(pieces):
    with pytest.raises(Unavailable):
        sent(Storage(GET=(200, {b"content-length": b"4"}, pieces)))


def test_a_client_that_leaves_is_noticed():
    pieces = [b"x"] * 10
    result, _, body = sent(Storage(GET=(200, {b"content-length": b"10"}, pieces)), is_gone=True)
    assert result is Ending.CLIENT_GONE
    assert len(body) < 10


RANGE = ((b"range", b"bytes=1-2"),)
PART = {b"content-length": b"2", b"content-range": b"bytes 1-2/4"}


def test_a_part_is_passed_on_as_it_was_asked_for():
    storage = Storage(GET=(206, PART, [b"bc"]))
    _, head, body = sent(storage, headers=RANGE)
    assert (head["status"], body, fields(head)[b"content-range"]) == (206, b"bc", b"bytes 1-2/4")
    assert storage.asked == [("GET", RANGE)]


def test_a_range_beyond_the_end_is_the_clients_to_correct():
    result, head, _ = sent(Storage(GET=(416, {b"content-range": b"bytes */4"}, [])), headers=RANGE)
    assert isinstance(result, RefusedFile)
    assert (result.reason, result.headers) == (
        Reason.RANGE_NOT_SATISFIABLE,
        ((b"content-range", b"bytes */4"),),
    )
    assert head is None


@pytest.mark.parametrize(
    ("status", "more"),
    [
        (206, {}),
        (206, {b"content-range": b"bytes */4"}),
        (206, {b"content-range": b"bytes 1-3/4"}),
        (206, {b"content-range": b"bytes 2-1/4"}),
        (206, {b"content-range": b"items 1-2/4"}),
        (416, {b"content-range": b"bytes 1-2/4"}),
        (200, {b"content-encoding": b"gzip"}),
        (204, {}),
        (302, {b"location": b"https://elsewhere.example/"}),
        (403, {}),
        (500, {}),
    ],
)
def test_what_is_no_part_and_no_whole_of_a_file_is_not_passed_on(status, more):
    with pytest.raises(Unavailable) as failure:
        sent(Storage(GET=(status, {b"content-length": b"2"} | more, [b"bc"])), headers=RANGE)
    assert failure.value.reason is Reason.UPSTREAM_UNDECIDED
    assert "5ecre7" not in str(failure.value)


def test_a_part_that_nobody_asked_for_is_not_passed_on():
    with pytest.raises(Unavailable):
        sent(Storage(GET=(206, PART, [b"bc"])))


@pytest.mark.parametrize(
    ("asked", "part", "is_it"),
    [
        (b"bytes=1-2", b"bytes 1-2/4", True),
        (b"bytes=2-9", b"bytes 2-3/4", True),
        (b"bytes=2-", b"bytes 2-3/4", True),
        (b"bytes=-2", b"bytes 2-3/4", True),
        (b"bytes=-9", b"bytes 0-1/2", True),
        (b"bytes=1-2", b"bytes 0-1/4", False),
        (b"bytes=1-2", b"bytes 2-3/4", False),
        (b"bytes=1-3", b"bytes 1-2/4", False),
        (b"bytes=2-", b"bytes 0-1/4", False),
        (b"bytes=2-", b"bytes 2-3/5", False),
        (b"bytes=-2", b"bytes 0-1/4", False),
    ],
)
def test_only_the_part_that_was_asked_for_is_passed_on(asked, part, is_it):
    storage = Storage(GET=(206, PART | {b"content-range": part}, [b"bc"]))
    if is_it:
        assert fields(sent(storage, headers=((b"range", asked),))[1])[b"content-range"] == part
        return
    with pytest.raises(Unavailable):
        sent(storage, headers=((b"range", asked),))


def test_a_key_with_too_much_under_way_is_told_so_at_once_and_others_are_served(run_in_virtual_time):
    class Slow(Storage):
        @asynccontextmanager
        async def open(self, url, headers, *, method="GET"):
            async with super().open(url, headers, method=method) as answer:
                await gate.wait()
                yield answer

    gate = asyncio.Event()
    storage = Slow(GET=(200, {b"content-length": b"1"}, [b"x"]))

    async def crowd():
        relay = Relay(provider=storage, authorized_files=None, sealed=None)
        first = [asyncio.create_task(send_by(relay)) for _ in range(STREAMS_OF_A_KEY)]
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(send_by(relay), timeout=1.0)
        assert len(storage.asked) == STREAMS_OF_A_KEY
        other = asyncio.create_task(send_by(relay, key_id="key_0123456789ac"))
        await asyncio.sleep(0.01)
        gate.set()
        return await asyncio.gather(*first, other)

    assert {result for result, _, _ in run_in_virtual_time(crowd())} == {Ending.RELAYED}


@pytest.mark.parametrize(
    "headers",
    [
        ((b"range", b"bytes=0-1,2-3"),),
        (*RANGE, *RANGE),
        ((b"range", b"bytes=a-b"),),
        (*RANGE, (b"if-range", b'"x"')),
    ],
)
def test_no_other_range_is_passed_on(headers):
    storage = Storage(GET=(200, {b"content-length": b"1"}, [b"x"]))
    sent(storage, headers=headers)
    assert storage.asked == [("GET", ())]


def test_of_a_file_without_a_digest_no_ranges_are_offered_or_asked_for():
    storage = Storage(GET=(200, {b"content-length": b"1", b"accept-ranges": b"bytes"}, [b"x"]))
    _, head, _ = sent(storage, headers=RANGE, md5=None)
    assert b"accept-ranges" not in fields(head)
    assert storage.asked == [("GET", ())]


def test_head_is_asked_with_head_and_else_with_the_first_byte():
    whole = {b"content-length": b"4", b"accept-ranges": b"bytes"}
    plain = Storage(HEAD=(200, whole, []))
    _, head, body = sent(plain, method="HEAD")
    assert (head["status"], body, fields(head)[b"content-length"]) == (200, b"", b"4")
    first = {b"content-length": b"1", b"content-range": b"bytes 0-0/4"}
    signed_for_get = Storage(HEAD=(403, {}, []), GET=(206, first, [b"a"]))
    _, other, body = sent(signed_for_get, method="HEAD")
    assert (other["status"], body) == (200, b"")
    assert fields(other) | {b"traceparent": b""} == fields(head) | {b"traceparent": b""}
    assert signed_for_get.asked[1] == ("GET", ((b"range", b"bytes=0-0"),))


def test_head_of_an_empty_file_says_so():
    empty = Storage(HEAD=(403, {}, []), GET=(416, {b"content-range": b"bytes */0"}, []))
    _, head, _ = sent(empty, method="HEAD")
    assert (head["status"], fields(head)[b"content-length"]) == (200, b"0")
