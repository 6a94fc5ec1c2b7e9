"""Parse times and durations as people write them: `30d`, `12h`, or an ISO time with its zone.

Used for `--expires`, `--not-before` and `--overlap`. A time without a zone is refused: otherwise a key could
end hours early or late, depending on the time zone of the terminal, and nobody would notice.
No clock is read here; durations count from the `now` that is passed in.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from gateway.model.errors import BadNameError

MAX_DURATION_SECONDS = 36_500 * 86_400.0  # a hundred years; more is a typing error
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,12})([wdhms])")
_EXPECTED_DURATION = "expected a number and a unit: 90s, 15m, 12h, 30d or 4w"


def parse_duration(text: str) -> float:
    """The seconds of a duration such as `30d`, `12h`, `90s` or `0s`; at most a hundred years."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadNameError(f"{text!r} is not a duration: {_EXPECTED_DURATION}")
    seconds = float(int(match[1]) * _SECONDS[match[2]])
    if seconds > MAX_DURATION_SECONDS:
        raise BadNameError(f"{text!r} is too long a duration: expected at most a hundred years")
    return seconds


def parse_moment(text: str, now: float) -> float:
    """Seconds since the epoch: a duration from now, or an ISO date and time with its zone."""
    if _DURATION.fullmatch(text):
        return now + parse_duration(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadNameError(
            f"{text!r} is not a time: {_EXPECTED_DURATION}, or 2030-01-31T12:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise BadNameError(f"{text!r} has no time zone: write 2030-01-31T12:00:00Z for UTC, or +02:00")
    try:
        return moment.astimezone(UTC).timestamp()  # of a year that can be written, in UTC as well
    except (OverflowError, ValueError) as error:
        raise BadNameError(f"{text!r} is outside the range of times") from error


def format_duration(seconds: float) -> str:
    """The duration in the largest unit that divides it, without weeks: 7d, 36h, 90s."""
    whole = math.floor(seconds)
    for unit in ("d", "h", "m"):
        if whole and whole % _SECONDS[unit] == 0:
            return f"{whole // _SECONDS[unit]}{unit}"
    return f"{whole}s"
