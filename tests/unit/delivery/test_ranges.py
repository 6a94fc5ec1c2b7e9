"""Ranges beyond the corpus of cases, which runs through `plan_delivery`: the limits."""

from __future__ import annotations

import pytest

from gateway.delivery.ranges import MAX_DIGITS, MAX_FIELD_BYTES, MAX_RANGES, Span, coalesce, find_ranges

SIZE = 1_000_000


def scattered(count):
    """A field with so many ranges of a single byte, each with a gap after it."""
    return b"bytes=" + b",".join(b"%d-%d" % (2 * n, 2 * n) for n in range(count))


def test_a_hundred_ranges_are_answered_and_one_more_is_ignored():
    assert len(find_ranges([scattered(MAX_RANGES)], SIZE)) == MAX_RANGES
    assert find_ranges([scattered(MAX_RANGES + 1)], SIZE) is None


def test_ranges_are_counted_after_they_were_coalesced():
    field = b"bytes=" + b",".join(b"%d-%d" % (n, n + 1) for n in range(3 * MAX_RANGES))
    assert len(field) <= MAX_FIELD_BYTES
    assert find_ranges([field], SIZE) == (Span(offset=0, count=3 * MAX_RANGES + 1),)


def test_ranges_behind_the_end_are_not_counted():
    field = scattered(MAX_RANGES) + b",9999999-"
    assert len(find_ranges([field], SIZE)) == MAX_RANGES


def test_a_field_that_no_client_has_a_use_for_is_not_read():
    field = b"bytes=0-1," + b"0" * MAX_FIELD_BYTES
    assert find_ranges([field], SIZE) is None
    assert find_ranges([b"bytes=0-1" + b"," * (MAX_FIELD_BYTES - 9)], SIZE) == (Span(offset=0, count=2),)


def test_the_longest_number_is_read():
    digits = b"9" * MAX_DIGITS
    assert find_ranges([b"bytes=0-" + digits], SIZE) == (Span(offset=0, count=SIZE),)
    assert find_ranges([b"bytes=" + digits + b"-"], SIZE) == ()
    for field in (b"bytes=0-9" + digits, b"bytes=9" + digits + b"-", b"bytes=-9" + digits):
        assert find_ranges([field], SIZE) is None


@pytest.mark.parametrize("field", [b"bytes=0-", b"bytes=-1", b"bytes=-0", b"bytes=5-6"])
def test_an_empty_file_has_no_parts(field):
    assert find_ranges([field], 0) is None


def test_no_field_is_no_range():
    assert find_ranges([], SIZE) is None


def test_one_range_that_bridges_others_makes_them_one():
    apart = [Span(offset=0, count=2), Span(offset=4, count=2)]
    assert coalesce(apart) == apart
    assert coalesce([*apart, Span(offset=2, count=2)]) == [Span(offset=0, count=6)]
