"""A sealed cursor opens for its node and its reader alone, and tells nothing about its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.index import Cursor
from gateway.feed.sealed_cursors import MAX_TEXT, CursorSeal

KEY, OTHER = bytes(32), bytes([1]) * 32


def cursor(place=7):
    return Cursor("node-1", "0" * 16, place, 4096, "a" * 32)


@given(st.integers(0, (1 << 53) - 1), st.sampled_from(["all", "tenant trc_1 acme"]))
def test_what_was_sealed_opens_again_for_the_same_reader(place, reader):
    seal = CursorSeal(KEY)
    text = seal.seal(cursor(place), reader)
    assert CursorSeal(KEY).open(text, reader) == cursor(place)
    assert len(text) <= MAX_TEXT


def test_the_same_place_looks_different_each_time_and_all_places_are_of_one_length():
    seal = CursorSeal(KEY)
    texts = [seal.seal(cursor(place), "all") for place in (0, 0, 1, 127, 128, 65_536, 1 << 32, (1 << 53) - 1)]
    assert len(set(texts)) == len(texts)
    assert len({len(text) for text in texts}) == 1


def test_it_does_not_open_for_another_reader_nor_on_another_node():
    text = CursorSeal(KEY).seal(cursor(), "tenant trc_1 acme")
    for seal, reader in [
        (CursorSeal(KEY), "all"),
        (CursorSeal(KEY), "tenant trc_2 acme"),
        (CursorSeal(OTHER), "tenant trc_1 acme"),
    ]:
        with pytest.raises(ValueError, match="another node or another reader"):
            seal.open(text, reader)


@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda raw: raw.hex()))
def test_other_text_is_no_cursor(text):
    with pytest.raises(ValueError, match="cursor"):
        CursorSeal(KEY).open(text, "all")


@given(st.integers(0, 200), st.characters(codec="ascii"))
def test_a_changed_character_is_no_cursor(index, character):
    text = CursorSeal(KEY).seal(cursor(), "all")
    index %= len(text) - 1  # the last one may have bits that stand for nothing
    if text[index] == character:
        return
    with pytest.raises(ValueError, match="cursor"):
        CursorSeal(KEY).open(text[:index] + character + text[index + 1 :], "all")
