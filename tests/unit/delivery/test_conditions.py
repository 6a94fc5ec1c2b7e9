"""Preconditions beyond the corpus of cases, which runs through `plan_delivery`."""

from __future__ import annotations

import pytest

from gateway.delivery.conditions import (
    MAX_FIELD_BYTES,
    NOTHING,
    Condition,
    entity_tags,
    evaluate,
    may_use_range,
)

TAG = b'"abc"'


def test_a_comma_may_stand_within_a_tag():
    assert entity_tags([b'"a,b", W/"c"']).strong == {b'"a,b"'}
    assert entity_tags([b'"a,b", W/"c"']).weak == {b'"c"'}


def test_a_tag_may_be_empty():
    assert entity_tags([b'""']).strong == {b'""'}


@pytest.mark.parametrize("raw", [b'"a b"', b'"a', b'a"', b"'a'", b'"a""b"', b'"a";"b"', b"**", b'"\x7f"'])
def test_what_is_no_list_of_tags_names_nothing(raw):
    named = entity_tags([raw])
    assert not named.is_any
    assert not named.strong
    assert not named.weak


def test_a_long_list_of_hostile_blanks_takes_no_time():
    raw = b'"a"' + b" \t" * 16_000 + b"x"
    assert not entity_tags([raw]).strong


def test_a_list_of_many_tags_is_read_whole():
    tags = [b'"%d"' % number for number in range(500)]
    assert entity_tags([b",".join(tags)]).strong == set(tags)


def test_a_list_that_is_longer_than_any_clients_names_nothing():
    longest = b'"' + b"a" * (MAX_FIELD_BYTES - 2) + b'"'
    assert entity_tags([longest]).strong == {longest}
    assert entity_tags([longest + b","]) == entity_tags([longest, b""]) == NOTHING
    assert entity_tags([b'"",' * 10_000]) == NOTHING


def test_without_fields_everything_is_met():
    assert evaluate({}, TAG) is Condition.MET
    assert evaluate({}, None) is Condition.MET


def test_a_range_stands_where_nothing_is_said_against_it():
    assert may_use_range({}, TAG)
    assert not may_use_range({b"if-range": [b""]}, TAG)
