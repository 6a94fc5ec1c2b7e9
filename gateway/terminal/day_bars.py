"""Bars of text: one for each day, as long as its value is large."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

BAR_CHARACTERS: Final = 24
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_FULL: Final = "█"


def text_bar(value: float, largest: float, width: int = BAR_CHARACTERS) -> str:
    """A bar for one value. What is more than nothing is seen: it has an eighth of a character at least."""
    if value <= 0 or largest <= 0:
        return ""
    eighths = max(1, round(min(value, largest) / largest * width * 8))
    return (_FULL * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
