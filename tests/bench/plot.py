"""A plot of bars, written by hand as SVG: a few rectangles and texts need no library.

The ground is white and everything on it has its own colour, so that it reads the same on a dark page.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WIDTH, LABELS, VALUES = 880, 270, 200  # of the whole, and left and right of the bars
BAR, GAP, TITLE, LINE, MARGIN = 18, 8, 30, 16, 20
OURS, THEIRS, INK, QUIET = "#0b6e4f", "#9aa5b1", "#1f2933", "#616e7c"


@dataclass(frozen=True)
class Bar:
    """One contender: the middle of its rounds, the least and the most."""

    label: str
    value: float
    least: float
    most: float
    is_ours: bool = False


@dataclass(frozen=True)
class Panel:
    """Bars of one unit."""

    title: str
    bars: Sequence[Bar]
    form: str = "{:,.0f}"


def write_plot(file: Path, title: str, notes: Sequence[str], panels: Sequence[Panel]) -> None:
    """Draw the panels one below the other."""
    parts = [_text(MARGIN, MARGIN + 12, title, size=16, weight="bold")]
    y = MARGIN + 28.0
    for panel in panels:
        y += TITLE
        parts.append(_text(MARGIN, y - 10, panel.title, size=13, weight="bold"))
        scale = (WIDTH - LABELS - VALUES) / max(bar.most for bar in panel.bars)
        for bar in panel.bars:
            parts += _drawn(bar, y, scale, panel.form)
            y += BAR + GAP
    for note in notes:
        y += LINE
        parts.append(_text(MARGIN, y, note, size=11, colour=QUIET))
    height = round(y + MARGIN)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    head = f"<title>{escape(title)}</title>"
    file.write_text("\n".join((opening, head, ground, *parts, "</svg>", "")), encoding="utf-8")


def _drawn(bar: Bar, y: float, scale: float, form: str) -> list[str]:
    """Its label, the bar, a line from the least to the most, and the value."""
    middle, end = y + BAR / 2, LABELS + bar.most * scale
    colour = OURS if bar.is_ours else THEIRS
    weight = "bold" if bar.is_ours else "normal"
    values = f"{form} ({form} to {form})".format(bar.value, bar.least, bar.most)
    span = f'x1="{LABELS + bar.least * scale:.1f}" x2="{end:.1f}" y1="{middle:.1f}" y2="{middle:.1f}"'
    return [
        _text(LABELS - 8, middle + 4, bar.label, weight=weight, anchor="end"),
        f'<rect x="{LABELS}" y="{y:.1f}" width="{bar.value * scale:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line {span} stroke="{INK}" stroke-width="1.5"/>',
        _text(end + 8, middle + 4, values, weight=weight),
    ]


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = INK,
) -> str:
    about = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {about}>{escape(words)}</text>'
