from __future__ import annotations

import re

from gateway.delivery.multipart import draw_boundary, multipart_pieces, multipart_type
from gateway.model.answers import Span

SPANS = (Span(offset=0, count=2), Span(offset=5, count=1))


def test_the_parts_are_the_form_of_the_standard():
    pieces = multipart_pieces(SPANS, 10, b"text/plain", b"XYZ")
    assert pieces == (
        b"--XYZ\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n",
        SPANS[0],
        b"\r\n--XYZ\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-5/10\r\n\r\n",
        SPANS[1],
        b"\r\n--XYZ--\r\n",
    )


def test_every_answer_has_a_boundary_of_its_own():
    drawn = {draw_boundary() for _ in range(100)}
    assert len(drawn) == 100
    # At least 128 random bits, and a token that needs no quotes (RFC 2046, 5.1.1).
    assert all(re.fullmatch(rb"[0-9a-f]{32,70}", one) for one in drawn)


def test_the_type_names_the_boundary():
    assert multipart_type(b"XYZ") == b"multipart/byteranges; boundary=XYZ"
