"""Answers as bytes: what is read, and what is refused. How they are split is a property test's."""

from __future__ import annotations

import pytest

from gateway.adapters.answer_reader import MAX_HEAD_BYTES, AnswerReader, MalformedAnswerError

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"content-length: 2\r\n\r\n{}"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

REFUSED = {
    "a length beside chunks": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunks beside a length": OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n",
    "one length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\n{}",
    "a length with a sign": OK + b"content-length: +2\r\n\r\n{}",
    "a negative length": OK + b"content-length: -2\r\n\r\n{}",
    "a hexadecimal length": OK + b"content-length: 0x2\r\n\r\n{}",
    "a length of other digits": OK + "content-length: \u0662\r\n\r\n{}".encode(),
    "an empty length": OK + b"content-length:\r\n\r\n",
    "a huge length": OK + b"content-length: 99999999999999999999\r\n\r\n",
    "a length with a blank in it": OK + b"content-length: 2 2\r\n\r\n{}",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "chunked twice in a list": OK + b"transfer-encoding: chunked, chunked\r\n\r\n",
    "another coding before": OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "another coding after": OK + b"transfer-encoding: chunked, gzip\r\n\r\n",
    "another coding": OK + b"transfer-encoding: gzip\r\n\r\n",
    "nearly chunked": OK + b"transfer-encoding: xchunked\r\n\r\n",
    "a coding with a vertical tab": OK + b"transfer-encoding: \x0bchunked\r\n\r\n",
    "an empty coding": OK + b"transfer-encoding:\r\n\r\n",
    "chunks with HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    "a body up to the end of the connection": OK + b"\r\n{}",
    "a body of a 204": b"HTTP/1.1 204 X\r\ncontent-length: 2\r\n\r\n",
    "chunks of a 204": b"HTTP/1.1 204 X\r\ntransfer-encoding: chunked\r\n\r\n",
    "a body of a 304": b"HTTP/1.1 304 X\r\ncontent-length: 2\r\n\r\n",
    "a body of a 100": b"HTTP/1.1 100 X\r\ncontent-length: 2\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "a bare switch of protocols": b"HTTP/1.1 101 X\r\n\r\n",
    "a folded field": OK + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
    "a folded length": OK + b"content-length:\r\n 2\r\n\r\n{}",
    "a line that ends with a bare LF": OK + b"x: a\ncontent-length: 2\r\n\r\n{}",
    "a status line that ends with a bare LF": b"HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\n{}",
    "a bare CR in a field": OK + b"x: a\rb\r\ncontent-length: 2\r\n\r\n{}",
    "a CR before the line end": OK + b"x: a\r\r\ncontent-length: 2\r\n\r\n{}",
    "a zero byte in a field": OK + b"x: a\x00b\r\ncontent-length: 2\r\n\r\n{}",
    "a zero byte in the status line": b"HTTP/1.1 200 a\x00\r\ncontent-length: 2\r\n\r\n{}",
    "a blank before a colon": OK + b"content-length : 2\r\n\r\n{}",
    "a blank in a name": OK + b"x y: 1\r\ncontent-length: 2\r\n\r\n{}",
    "no name": OK + b": 1\r\ncontent-length: 2\r\n\r\n{}",
    "no colon": OK + b"x\r\ncontent-length: 2\r\n\r\n{}",
    "a field that begins with a blank": OK + b" x: 1\r\ncontent-length: 2\r\n\r\n{}",
    "lines before the status line": b"\r\n" + TWO,
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/2 without a minor version": b"HTTP/2 200\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "another protocol": b"ICY 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "no status": b"HTTP/1.1 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a status below 100": b"HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a status above 599": b"HTTP/1.1 600 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a page": b"<html>\r\n\r\n",
    "a large field": OK + b"x: " + b"a" * MAX_HEAD_BYTES,
    "a large header": OK + b"x: a\r\n" * MAX_HEAD_BYTES,
    "a large header that is complete": OK + b"x: a\r\n" * MAX_HEAD_BYTES + b"content-length: 2\r\n\r\n{}",
    "informational answers without end": b"HTTP/1.1 102 X\r\n\r\n" * MAX_HEAD_BYTES,
    "a chunk without a size": CHUNKED + b"\r\n{}\r\n",
    "a chunk with a size that is no number": CHUNKED + b"zz\r\n",
    "a chunk with a negative size": CHUNKED + b"-2\r\n{}\r\n",
    "a chunk with a prefix of its size": CHUNKED + b"0x2\r\n{}\r\n",
    "a chunk with a blank after its size": CHUNKED + b"2 \r\n{}\r\n",
    "a chunk with a huge size": CHUNKED + b"fffffffffffffffff\r\n{}\r\n",
    "a chunk that is longer than its size": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "a size that ends with a bare LF": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "an extension that ends with a bare LF": CHUNKED + b"2;x\n{}\r\n0\r\n\r\n",
    "a chunk without a line end": CHUNKED + b"2\r\n{}0\r\n\r\n",
    "a length in a trailer": CHUNKED + b"0\r\ncontent-length: 2\r\n\r\n",
    "a folded trailer": CHUNKED + b"0\r\nx: a\r\n b\r\n\r\n",
}


def read(*pieces):
    reader = AnswerReader()
    for piece in pieces:
        reader.feed(piece)
    return reader


def body_of(reader):
    return b"".join(reader.take() for _ in tuple(reader.pieces))


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_however_it_is_split(answer):
    with pytest.raises(MalformedAnswerError):
        read(answer)
    step = max(1, len(answer) // 500)
    with pytest.raises(MalformedAnswerError):
        read(*(answer[start : start + step] for start in range(0, len(answer), step)))


@pytest.mark.parametrize("answer", REFUSED.values(), ids=REFUSED)
def test_a_refusal_holds_nothing_of_the_answer(answer):
    with pytest.raises(MalformedAnswerError) as caught:
        read(answer)
    assert len(str(caught.value)) < 40
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("answer", "body", "may_another_follow"),
    [
        (TWO, b"{}", True),
        (OK + b"Content-Length:   2  \r\n\r\n{}", b"{}", True),
        (OK + b"content-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}", b"{}", True),
        (b"HTTP/1.1 200 caf\xe9\r\ncontent-length: 2\r\n\r\n{}", b"{}", True),
        (b"HTTP/1.1 204 X\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 X\r\ncontent-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 X\r\n\r\n", b"", True),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", b"{}", True),
        (CHUNKED + b"1\r\n{\r\n1\r\n}\r\n000\r\n\r\n", b"{}", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (CHUNKED + b'2;a=b;c="d"\r\n{}\r\n0\r\n\r\n', b"{}", True),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nlink: x\r\n\r\n" + TWO, b"{}", True),
        # The answer is whole, and it is the last one on its connection.
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
        (OK + b"connection: keep-alive\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"{}", False),
        (TWO + b"x", b"{}", False),
        (TWO + b"\r\n", b"{}", False),
        (TWO + TWO, b"{}", False),
        (OK + b"content-length: 0\r\n\r\nx", b"", False),
        (b"HTTP/1.1 204 X\r\n\r\n{}", b"", False),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\nx", b"{}", False),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n\r\n", b"{}", False),
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + TWO, b"{}", False),
        (CHUNKED + b"2\r\n{}\r\n0\r\nx: y\r\n\r\n", b"{}", False),  # a trailer, which is dropped
        (CHUNKED + b"2\r\n{}\r\n0;x\r\n\r\n", b"{}", False),
    ],
)
def test_an_answer_ends_where_its_framing_says(answer, body, may_another_follow):
    for step in (1, 2, 3, len(answer)):
        reader = read(*(answer[start : start + step] for start in range(0, len(answer), step)))
        assert reader.is_complete
        assert body_of(reader) == body
        assert reader.held_bytes == 0
        assert reader.may_another_follow is may_another_follow


def test_an_upgrade_that_is_only_offered_is_a_plain_answer():
    reader = read(OK + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}")
    assert body_of(reader) == b"{}"


def test_names_are_in_lower_case_and_values_as_they_came():
    reader = read(OK + b"X-A: caf\xe9 B \r\nx-a:\tc\t\r\nx-b:\r\nContent-Length: 0\r\n\r\n")
    assert reader.headers == [
        (b"x-a", b"caf\xe9 B"),
        (b"x-a", b"c"),
        (b"x-b", b""),
        (b"content-length", b"0"),
    ]


def test_a_trailer_is_no_field_of_the_head():
    reader = read(CHUNKED + b"0\r\nx-model-id: other\r\n\r\n")
    assert reader.headers == [(b"transfer-encoding", b"chunked")]


def test_fields_of_informational_answers_are_no_fields_of_the_answer():
    reader = read(b"HTTP/1.1 103 X\r\nx-model-id: other\r\n\r\n" + TWO)
    assert reader.headers == [(b"content-length", b"2")]


@pytest.mark.parametrize("begun", [b"2;x=", b"0\r\nx: "])
def test_what_is_between_two_pieces_is_bounded(begun):
    with pytest.raises(MalformedAnswerError):
        read(CHUNKED + begun, *[b"a" * 1024] * (2 + MAX_HEAD_BYTES // 1024))


def test_many_small_chunks_are_held_as_one_piece():
    reader = read(CHUNKED + b"1\r\na\r\n" * 10_000)
    assert len(reader.pieces) == 1
    assert reader.held_bytes == 10_000


@pytest.mark.parametrize("answer", [TWO, CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"])
def test_an_answer_that_is_not_complete_says_so(answer):
    for end in range(len(answer)):
        assert not read(answer[:end]).is_complete
        assert not read(answer[:end]).may_another_follow
