"""Laws of the answers that inference servers give: splits do not matter, and no more is accepted than by h11.

Answers are put together from lines that are right, lines that are wrong and random bytes. The reference is
h11, another parser, written by other people: where ours accepts an answer, h11 reads the same one.
"""

from __future__ import annotations

from itertools import pairwise

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.adapters.answer_reader import AnswerReader, MalformedAnswerError

STARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 404 caf\xe9\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 X\r\nlink: x\r\n\r\nHTTP/1.1 503 X\r\n",
        b"HTTP/1.1 101 X\r\n",
        b"HTTP/2.0 200 OK\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\n",
    ]
)
FIELDS = st.sampled_from(
    [
        b"content-length: 2\r\n",
        b"Content-Length:2 \r\n",
        b"content-length: 0\r\n",
        b"content-length: 2, 2\r\n",
        b"content-length: 0x2\r\n",
        b"content-length : 2\r\n",
        b"transfer-encoding: chunked\r\n",
        b"Transfer-Encoding: Chunked\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: gzip\r\n",
        b"connection: close\r\n",
        b"connection: upgrade\r\nupgrade: x\r\n",
        b"x-model-id: acme/1\r\n",
        b"x: a\r\n b\r\n",
        b"x: a\rb\r\n",
        b"x: a\nb: c\r\n",
        b"x\x00: a\r\n",
        b"x: \xff\t\r\n",
        b": a\r\n",
        b"\r\n",
    ]
)
BODIES = st.sampled_from(
    [
        b"{}",
        b"{",
        b"{}x",
        b"",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nx: y\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        b"{}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        b"2\n{}\n0\n\n",
        b"2 \r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n",
    ]
)


@st.composite
def answers(draw):
    fields = b"".join(draw(st.lists(FIELDS, max_size=4)))
    answer = draw(STARTS) + fields + b"\r\n" + draw(BODIES)
    if draw(st.integers(0, 4)) == 0:  # something of it is another byte
        place = draw(st.integers(0, len(answer) - 1))
        answer = answer[:place] + draw(st.binary(max_size=2)) + answer[place + 1 :]
    return answer


def read(*pieces):
    """What came of these bytes. Of a refused answer, only that it is refused: pieces come before or not."""
    reader, body = AnswerReader(), b""
    try:
        for piece in pieces:
            reader.feed(piece)
            while reader.pieces:
                body += reader.take()
    except MalformedAnswerError:
        return "refused"
    head = (reader.status, tuple(reader.headers)) if reader.has_head else None
    return head, body, reader.is_complete, reader.may_another_follow


def split(data, places):
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def read_by_h11(data):
    connection, head, body = h11.Connection(h11.CLIENT), None, b""
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            head = event.status_code, tuple((name, value.lower()) for name, value in event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return head, body, True
        elif event is h11.NEED_DATA or event is h11.PAUSED:
            return head, body, False


@given(answers(), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_an_answer_is_the_same_however_its_bytes_are_split(answer, places):
    whole = read(answer)
    assert read(*split(answer, places)) == whole
    assert read(*(answer[at : at + 1] for at in range(len(answer)))) == whole


@given(answers())
@example(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
@example(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
def test_what_is_accepted_is_what_another_parser_reads(answer):
    ours = read(answer)
    if ours != "refused" and ours[0] is not None:
        (status, fields), body, is_complete, _ = ours
        lowered = tuple((name, value.lower()) for name, value in fields)  # as h11 has the name of a coding
        assert read_by_h11(answer) == ((status, lowered), body, is_complete)


@given(st.binary(max_size=40), st.booleans())
def test_nothing_that_follows_an_answer_becomes_a_part_of_it(surplus, is_chunked):
    framed = b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + (framed if is_chunked else b"content-length: 2\r\n\r\n{}")
    head, body, is_complete, may_another_follow = read(answer + surplus)
    assert head[0] == 200
    assert body == b"{}"
    assert is_complete
    assert may_another_follow is not bool(surplus)
    assert read(answer, surplus) == (head, body, is_complete, may_another_follow)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_or_not_complete(data):
    found = read(data)
    assert found == "refused" or found[0] is None
