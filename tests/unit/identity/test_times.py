from __future__ import annotations

import pytest

from gateway.identity.times import format_duration, parse_duration, parse_moment
from gateway.model.errors import BadNameError

NOW = 1_800_000_000.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("15m", 900),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("4w", 2_419_200),
        ("007s", 7),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_moment(text, NOW) == NOW + seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "30",
        "d",
        "-1d",
        "+1d",
        "1.5h",
        "1 d",
        "1D",
        "1y",
        "1d\n",
        "1d2h",
        "\u0663d",
        "99999d",
        "9" * 30 + "s",
    ],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(BadNameError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2030-01-31T12:00:00Z", 1_896_091_200),
        ("2030-01-31T14:00:00+02:00", 1_896_091_200),
        ("2030-01-31 12:00:00.25+00:00", 1_896_091_200.25),
    ],
)
def test_a_moment_states_its_zone(text, moment):
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["2030-01-31T12:00:00", "2030-01-31", "20300131T120000"])
def test_a_moment_without_a_zone_is_refused_and_says_how_to_write_one(text):
    with pytest.raises(BadNameError, match="time zone"):
        parse_moment(text, NOW)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_moment_of_a_year_that_cannot_be_written_in_utc_is_refused(text):
    with pytest.raises(BadNameError, match="range"):
        parse_moment(text, NOW)


@pytest.mark.parametrize(
    "text", ["", "now", "tomorrow", "2030-02-30T12:00:00Z", "1896091200", "0001-01-01T00:00:00+23:00x"]
)
def test_what_is_no_time_is_refused_and_says_what_is(text):
    with pytest.raises(BadNameError, match="30d"):
        parse_moment(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (90, "90s"), (129_600, "36h"), (604_800, "7d")],
)
def test_a_duration_is_shown_in_the_largest_unit_that_divides_it(seconds, text):
    assert format_duration(seconds) == text
