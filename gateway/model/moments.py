"""Times as people and scripts read them: UTC, to the second."""

from __future__ import annotations

from datetime import UTC, datetime


def when(seconds: float | None) -> str | None:
    """A time as text; None for none."""
    return None if seconds is None else at(seconds)


def at(seconds: float) -> str:
    """A time as text.

    A time outside the calendar's range, as a file on a volume may claim, is shown as its seconds since 1970.
    """
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"@{seconds:.0f}"
    return text.replace("+00:00", "Z")
