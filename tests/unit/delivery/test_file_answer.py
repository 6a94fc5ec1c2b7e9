"""Both corpora of cases, and what has to hold for every plan."""

from __future__ import annotations

import tomllib
from email import message_from_bytes
from email.policy import HTTP
from hashlib import sha256
from pathlib import Path

import pytest

from gateway.delivery.file_answer import (
    MAX_UNHASHED_RANGED_BYTES,
    RefusedFile,
    answer_file,
    describe_whole,
    plan_delivery,
)
from gateway.delivery.headers import asked_fields
from gateway.model.answers import FileParts, Span
from gateway.model.errors import Reason
from gateway.model.verdicts import HeldFile
from gateway.problems import PROBLEMS

CASES = Path(__file__).parents[2] / "cases"
CONDITIONS = tomllib.loads((CASES / "conditions.toml").read_text())["case"]
RANGES = tomllib.loads((CASES / "ranges.toml").read_text())["case"]
REQUIRED_CLAUSES = {
    *("13.1.1", "13.1.2", "13.1.3", "13.1.4", "13.1.5", "13.2.1", "13.2.2"),
    *("14.1", "14.1.1", "14.1.2", "14.2", "14.3", "15.3.7", "15.3.7.2", "15.5.17"),
    *("RFC 9530, 3.1", "RFC 9530, 4"),
}

CONTENT = b"0123456789"
SHA256 = sha256(CONTENT).hexdigest()
OTHER = sha256(b"another file").hexdigest()


def plan(method="GET", headers=(), *, content=CONTENT, is_pinned=True, is_blob=True):
    digest = sha256(content).hexdigest() if is_pinned else None
    return plan_delivery(method, asked_fields(headers), size=len(content), sha256=digest, is_blob=is_blob)


def body_of(planned, content=CONTENT):
    return b"".join(
        content[piece.offset : piece.end] if isinstance(piece, Span) else piece for piece in planned.pieces
    )


def status_of(planned):
    return planned.status or PROBLEMS[planned.reason].status


def filled(value):
    """A header of a case, with its placeholders replaced by tags."""
    for name, tag in (("{etag}", SHA256), ("{other}", OTHER), ("{ETAG}", SHA256.upper())):
        value = value.replace(name, f'"{tag}"')
    return value.encode("latin-1")


@pytest.mark.parametrize("case", CONDITIONS, ids=[case["name"] for case in CONDITIONS])
def test_every_condition_of_the_corpus_comes_out_as_written(case):
    headers = [(name.encode(), filled(value)) for name, value in case.get("headers", [])]
    planned = plan(case.get("method", "GET"), headers, is_pinned=case.get("pinned", True))
    names = {name.decode() for name, _ in planned.headers}
    expect = case["expect"]
    assert status_of(planned) == expect["status"]
    assert set(expect.get("carries", [])) <= names
    assert not set(expect.get("lacks", [])) & names


@pytest.mark.parametrize("case", RANGES, ids=[case["name"] for case in RANGES])
def test_every_range_of_the_corpus_comes_out_as_written(case):
    raw = case["range"] if isinstance(case["range"], list) else [case["range"]]
    planned = plan(case.get("method", "GET"), [(b"range", one.encode("latin-1")) for one in raw])
    expect, headers = case["expect"], dict(planned.headers)
    assert status_of(planned) == expect["status"]
    content_range = headers.get(b"content-range")
    assert (content_range and content_range.decode()) == expect.get("content_range")
    assert parts_of(planned) == [part.encode() for part in expect.get("parts", [])]


def parts_of(planned):
    """What a client reads from a 206."""
    if planned.status != 206:
        return []
    content_type = dict(planned.headers)[b"content-type"]
    if not content_type.startswith(b"multipart/"):
        return [body_of(planned)]
    raw = b"Content-Type: " + content_type + b"\r\n\r\n" + body_of(planned)
    message = message_from_bytes(raw, policy=HTTP)
    return [part.get_payload(decode=True) for part in message.get_payload()]


def test_the_corpora_name_every_clause_that_is_ours():
    named = {case["clause"] for case in (*CONDITIONS, *RANGES)}
    assert named >= REQUIRED_CLAUSES


@pytest.mark.parametrize("cases", [CONDITIONS, RANGES])
def test_no_two_cases_have_one_name(cases):
    assert len({case["name"] for case in cases}) == len(cases)


@pytest.mark.parametrize("case", CONDITIONS, ids=[case["name"] for case in CONDITIONS])
def test_head_has_the_headers_of_get_without_its_range(case):
    headers = [(name.encode(), filled(value)) for name, value in case.get("headers", []) if name != "range"]
    is_pinned = case.get("pinned", True)
    of_get, of_head = (plan(method, headers, is_pinned=is_pinned) for method in ("GET", "HEAD"))
    assert (of_head.status, of_head.headers, of_head.length) == (of_get.status, of_get.headers, of_get.length)
    assert of_head.pieces == ()


@pytest.mark.parametrize("field", ["bytes=0-1", "bytes=0-1,4-5", "bytes=0-0,2-2,4-4,6-6", "bytes=0-"])
@pytest.mark.parametrize("content", [CONTENT, b"x" * 100_000])
def test_the_announced_length_is_the_length_of_the_body(field, content):
    planned = plan(headers=[(b"range", field.encode())], content=content)
    assert planned.status == 206
    assert int(dict(planned.headers)[b"content-length"]) == planned.length == len(body_of(planned, content))


def test_several_parts_have_no_content_range_of_their_own():
    headers = dict(plan(headers=[(b"range", b"bytes=0-1,4-5")]).headers)
    assert b"content-range" not in headers
    assert headers[b"etag"] == f'"{SHA256}"'.encode()


def test_the_boundary_is_drawn_anew_for_each_answer():
    def boundary():
        return dict(plan(headers=[(b"range", b"bytes=0-1,4-5")]).headers)[b"content-type"]

    assert boundary() != boundary()


def test_a_refusal_says_its_reason_and_has_no_body():
    failed = plan(headers=[(b"if-match", b'"x"')])
    unsatisfied = plan(headers=[(b"range", b"bytes=10-")])
    unknown = plan(headers=[(b"if-match", b'"x"')], is_pinned=False)
    assert failed.reason is Reason.PRECONDITION_FAILED
    assert unsatisfied.reason is Reason.RANGE_NOT_SATISFIABLE
    assert unknown.reason is Reason.NOT_PINNED
    assert failed.pieces == unsatisfied.pieces == unknown.pieces == ()


def of_size(size, *, is_blob, headers=((b"range", b"bytes=0-1"),)):
    return plan_delivery("GET", asked_fields(headers), size=size, sha256=SHA256, is_blob=is_blob)


def test_large_files_without_an_md5_come_whole():
    small, large = MAX_UNHASHED_RANGED_BYTES, MAX_UNHASHED_RANGED_BYTES + 1
    assert large == 32 << 20
    assert of_size(small, is_blob=False).status == 206
    assert of_size(large, is_blob=False).status == 200
    assert of_size(large, is_blob=True).status == 206
    names = [name for name, _ in of_size(large, is_blob=False, headers=()).headers]
    assert b"accept-ranges" not in names
    assert b"etag" in names


def test_an_empty_file_is_answered_whole():
    planned = plan(content=b"", headers=[(b"range", b"bytes=0-")])
    assert planned.status == 200
    assert planned.length == 0
    assert body_of(planned, b"") == b""


def test_nothing_is_ever_encoded():
    for headers in ([(b"accept-encoding", b"gzip, br, identity;q=0")], []):
        planned = plan(headers=headers)
        assert b"content-encoding" not in dict(planned.headers)
        assert body_of(planned) == CONTENT


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"range", b"bytes=2-5"),),
        ((b"range", b"bytes=-3"),),
        ((b"range", b"bytes=99-"),),
        ((b"if-none-match", b'"another"'),),
        ((b"if-match", b'"another"'),),
        ((b"want-repr-digest", b"sha-256=1"),),
    ],
)
def test_a_file_in_memory_is_answered_like_one_that_is_open(method, headers, blob_of, new_receipt):
    blob = blob_of(b"0123456789")
    opened = blob.opened()
    known = {name: getattr(opened, name) for name in opened.__struct_fields__}
    described = describe_whole(opened.size, opened.sha256, is_blob=True)
    held = HeldFile(**known | {"descriptor": -1, "content": blob.content, "headers": described})
    from_disk, from_memory = (
        answer_file(new_receipt(one, method=method, headers=headers)) for one in (opened, held)
    )
    if isinstance(from_disk, RefusedFile):
        assert from_memory == from_disk
        return
    assert (from_memory.status, from_memory.headers) == (from_disk.status, from_disk.headers)
    if method == "HEAD":  # whoever sends the answer leaves the body out
        return
    body = from_disk.body
    if isinstance(body, FileParts):
        body = b"".join(blob.content[one.offset : one.end] for one in body.pieces)
    assert from_memory.body == body
