"""A bar is as long as its value, and what is more than nothing is seen."""

from __future__ import annotations

from gateway.terminal.day_bars import text_bar


def test_the_largest_has_the_whole_width_and_half_of_it_half():
    assert text_bar(10, 10, width=8) == "█" * 8
    assert text_bar(5, 10, width=8) == "█" * 4


def test_what_is_more_than_nothing_is_seen():
    assert text_bar(1, 1_000_000) == "▏"
    assert text_bar(0, 10) == text_bar(0, 0) == ""


def test_no_bar_is_wider_than_the_width():
    assert len(text_bar(20, 10, width=8)) == 8
