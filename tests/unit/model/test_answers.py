"""Byte ranges of an answer."""

from __future__ import annotations

from gateway.model.answers import Span


def test_a_range_ends_before_its_end_and_is_written_with_its_last_byte():
    span = Span(offset=3, count=5)
    assert (span.end, span.content_range(100)) == (8, b"bytes 3-7/100")
