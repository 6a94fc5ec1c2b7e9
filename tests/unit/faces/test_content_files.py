"""The file endpoint: how delivery's result gets into the meter and the answer to the client."""

from __future__ import annotations

import asyncio
import json
import os
from hashlib import md5, sha256

import pytest
from msgspec.structs import replace

from gateway.delivery.file_answer import Means
from gateway.faces.content import FILE, file_answers
from gateway.faces.route import FaceRoute
from gateway.middleware.guard import METER, RECEIPT
from gateway.middleware.meter import Meter
from gateway.model.names import FileHandle, Md5, ModelId, PackageId
from gateway.model.verdicts import Admission, Ending, OpenFile, Receipt
from tests import samples

CONTENT = b"content of a blob\n"
SHA256 = sha256(CONTENT).hexdigest()
RECORD = "0190-" + "r" * 31


@pytest.fixture
def served(tmp_path):
    """Serve one request for a file; return the messages and the outcome."""
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)

    def serve(*headers, method="GET", name=None, is_pinned=True, means=None):
        descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(descriptor)
        file = OpenFile(
            descriptor=descriptor,
            size=found.st_size,
            identity=(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
            model=ModelId("m"),
            package=PackageId("p"),
            handle=FileHandle("f"),
            md5=Md5(name or md5(CONTENT, usedforsecurity=False).hexdigest()),
            sha256=SHA256 if is_pinned else None,
        )
        request = samples.wire_request(method=method, headers=headers, client="-", route="/")
        admission = Admission(request=request, allowed=None, found=file, stamp=None, key_stamp=None)
        receipt = Receipt(record_id=RECORD, admission=admission, on_close=lambda outcome: None)
        meter, messages = Meter(0.0), []

        async def send(message):
            messages.append(message)

        async def receive():
            await asyncio.Event().wait()

        scope = {"method": method, RECEIPT: receipt, METER: meter}
        route = FaceRoute(replace(FILE, answer=file_answers(means or Means())))
        asyncio.run(route.handle(scope, receive, meter.counting(send)))
        outcome = meter.outcome(0.0)
        receipt.close(outcome)
        return messages, outcome

    return serve


def test_a_file_that_was_hashed_on_the_way_is_in_the_outcome(served):
    messages, outcome = served(is_pinned=False)
    assert b"".join(one.get("body", b"") for one in messages) == CONTENT
    assert (outcome.ending, outcome.sha256) == (Ending.COMPLETE, SHA256)


def test_a_pinned_file_says_so_in_its_decision_and_not_again(served):
    _, outcome = served()
    assert outcome.sha256 is None


def test_content_that_is_not_its_name_is_not_found(served):
    messages, outcome = served(name="0" * 32, is_pinned=False)
    start, body = messages
    assert start["status"] == 404
    assert CONTENT not in body["body"]
    assert (outcome.ending, outcome.status) == (Ending.QUARANTINED, 404)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("header", "status", "kind"),
    [
        ((b"if-match", b'"x"'), 412, "precondition-failed"),
        ((b"range", b"bytes=99-"), 416, "range-not-satisfiable"),
    ],
)
def test_another_answer_has_the_shape_of_every_refusal(method, header, status, kind, served):
    messages, outcome = served(header, method=method)
    if status == 416 and method == "HEAD":
        assert outcome.status == 200
        return
    start, body = messages
    headers = dict(start["headers"])
    assert start["status"] == outcome.status == status
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"cachegate-record"] == RECORD.encode()
    assert headers.get(b"content-range") == (b"bytes */18" if status == 416 else None)
    if method == "HEAD":
        assert body["body"] == b""
        assert int(headers[b"content-length"]) > 0
    else:
        problem = json.loads(body["body"])
        assert problem["type"] == f"urn:cachegate:problem:{kind}"
        assert (problem["status"], problem["record"]) == (status, RECORD)
        assert int(headers[b"content-length"]) == len(body["body"])
    assert outcome.ending is Ending.COMPLETE


def test_a_file_that_is_not_pinned_cannot_answer_if_match_yet(served):
    messages, outcome = served((b"if-match", b'"x"'), is_pinned=False)
    assert outcome.status == 503
    assert dict(messages[0]["headers"])[b"retry-after"] == b"1"


def test_what_was_handed_off_is_recorded_as_that(served):
    _, outcome = served(means=Means(accel_prefix="/_blobs"))
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.HANDED_OFF, 200, 0)
