"""Header fields as pairs and as lines: both say the same, in the same order."""

from __future__ import annotations

from gateway.model.header_block import Headers

FIELDS = (b"b", b"1"), (b"a", b"2"), (b"b", b"3")


def test_pairs_and_lines_are_the_same_fields_in_the_same_order():
    headers = Headers.of(*FIELDS)
    assert headers.pairs == FIELDS
    assert headers.block == b"b: 1\r\na: 2\r\nb: 3\r\n"
    assert Headers.of().block == b""


def test_more_fields_follow_and_change_nothing_that_is_there():
    headers = Headers.of(*FIELDS[:2])
    assert headers.and_also(FIELDS[2]) == Headers.of(*FIELDS)
    assert headers.pairs == FIELDS[:2]
