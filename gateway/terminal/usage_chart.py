"""A usage report as a drawing (SVG), for a page or a document: requests and refusals a day, and bytes a day.

Two panels with the same days: both have axes with units, and a legend says what the colours mean. The ground
is white and everything on it has its own colour, so it reads the same on a dark page. All text is escaped:
names in a log may have been chosen by anybody.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from gateway.audit.usage.usage_report import ReportedDay, UsageReport

WIDTH, LEFT, RIGHT = 880, 90, 30  # of the whole, and beside the bars
PANEL, SPACE, TOP = 200, 70, 96
INK, QUIET, GRID = "#1f2933", "#616e7c", "#e4e7eb"
READS, RUNS, REFUSALS, BYTES = "#0b6e4f", "#5b8def", "#c2410c", "#7c5cbf"
MAX_DAY_LABELS: Final = 12
_STEPS: Final = (1, 2, 2.5, 5, 10)
_LINES: Final = 4
_GAP: Final = 0.2  # of a day, between bars
_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_THOUSAND: Final = 1000


class _Series(msgspec.Struct, frozen=True):
    label: str
    colour: str
    value: Callable[[ReportedDay], int]


class _Panel(msgspec.Struct, frozen=True):
    title: str
    series: Sequence[_Series]
    form: Callable[[float], str]


def usage_chart(report: UsageReport, title: str) -> str:
    """The drawing, as the text of an SVG file."""
    unit, divisor = _byte_unit(max((day.bytes for day in report.days), default=0))
    requests = (
        _Series("reads", READS, lambda day: day.reads),
        _Series("runs by an inference server", RUNS, lambda day: day.runs),
        _Series("refusals", REFUSALS, lambda day: day.refusals),
    )
    panels = (
        _Panel("Requests a day", requests, lambda value: f"{value:,.0f}"),
        _Panel(
            f"Sent a day ({unit})",
            (_Series("bytes sent", BYTES, lambda day: day.bytes),),
            lambda value: f"{value / divisor:,.4g}",
        ),
    )
    total = report.total
    said = (
        f"{total.reads:,} reads, {total.runs:,} runs, {total.refusals:,} refusals, {total.bytes:,} bytes sent"
    )
    drawn = [_text(20, 30, title, size=16, weight="bold"), _text(20, 50, said, colour=QUIET, size=12)]
    drawn += _legend([one for panel in panels for one in panel.series])
    top = TOP
    for panel in panels:
        drawn += _drawn(panel, report.days, top)
        top += PANEL + SPACE
    height = top - SPACE + 50
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join((opening, f"<title>{_escaped(title)}</title>", ground, *drawn, "</svg>", ""))


def nice_step(largest: float, lines: int = _LINES) -> float:
    """The distance of grid lines: whole, and 1, 2, 2.5 or 5 times a power of ten."""
    if largest <= 0:
        return 1.0
    rough = largest / lines
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in _STEPS if one * power >= rough)
    return max(1.0, math.ceil(step) if step < 10 else step)  # noqa: PLR2004 -- 2.5 of a request is none


def _drawn(panel: _Panel, days: Sequence[ReportedDay], top: float) -> list[str]:
    """One panel: title, grid with values, stacked bars, and the days below."""
    largest = max((sum(one.value(day) for one in panel.series) for day in days), default=0)
    step = nice_step(largest)
    highest = step * max(1, math.ceil(largest / step))
    bottom = top + PANEL
    drawn = [_text(LEFT, top - 10, panel.title, size=13, weight="bold")]
    for number in range(round(highest / step) + 1):
        y = bottom - number * step / highest * PANEL
        drawn.append(_line(LEFT, y, WIDTH - RIGHT, y, INK if number == 0 else GRID))
        drawn.append(_text(LEFT - 8, y + 4, panel.form(number * step), anchor="end", size=11, colour=QUIET))
    drawn.append(_line(LEFT, top, LEFT, bottom, INK))
    if not days:
        return [*drawn, _text(LEFT + 12, top + 24, "Nothing in this time.", colour=QUIET)]
    width = (WIDTH - LEFT - RIGHT) / len(days)
    every = math.ceil(len(days) / MAX_DAY_LABELS)
    for index, day in enumerate(days):
        x, y = LEFT + index * width, float(bottom)
        for one in panel.series:
            value = one.value(day)
            tall = value / highest * PANEL
            y -= tall
            if value:
                drawn.append(_bar(x + width * _GAP / 2, y, width * (1 - _GAP), tall, one, day))
        if index % every == 0:
            drawn.append(_text(x + width / 2, bottom + 18, day.day, anchor="middle", size=10, colour=QUIET))
    return drawn


def _bar(x: float, y: float, width: float, tall: float, series: _Series, day: ReportedDay) -> str:
    said = _escaped(f"{day.day}: {series.value(day):,} {series.label}")
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{tall:.1f}"'
    return f'<rect {place} fill="{series.colour}"><title>{said}</title></rect>'


def _legend(series: Sequence[_Series]) -> list[str]:
    drawn, x = [], 20.0
    for one in series:
        drawn.append(f'<rect x="{x:.0f}" y="60" width="12" height="12" fill="{one.colour}"/>')
        drawn.append(_text(x + 18, 70, one.label, size=12))
        x += 40 + 7 * len(one.label)
    return drawn


def _byte_unit(largest: int) -> tuple[str, float]:
    """The unit in which the largest value is below a thousand."""
    divisor = 1.0
    for unit in _BYTE_UNITS[:-1]:
        if largest / divisor < _THOUSAND:
            return unit, divisor
        divisor *= _THOUSAND
    return _BYTE_UNITS[-1], divisor


def _line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 12,
    weight: str = "normal",
    anchor: str = "start",
    colour: str = INK,
) -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{_escaped(text)}</text>'


def _escaped(text: str) -> str:
    """Text for XML: what is special there, and characters that no XML file may have."""
    return escape("".join(one if one.isprintable() else "\ufffd" for one in text))
