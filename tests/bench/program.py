"""What the benchmark programs have in common: `--quick`, `--json FILE`, an end at any moment, the report."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import Report, console

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130


def arguments_of(document: str, quick: str) -> argparse.ArgumentParser:
    """Those that every program has. `document` is its docstring; `quick` says what that means for it."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{quick}, within a minute or two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rows and machine there")
    return parser


def run(
    title: str,
    measure: Callable[[Report], None],
    chosen: argparse.Namespace,
    *,
    draw: Callable[[Report], None] | None = None,
) -> int:
    """Measure, print, write, draw. What was started is stopped, however it ends."""
    signal.signal(signal.SIGTERM, _interrupt)
    report = Report(f"{title}{' (quick)' if chosen.quick else ''}")
    try:
        measure(report)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return INTERRUPTED
    report.end()
    report.print()
    report.write(chosen.json)
    if draw is not None:
        draw(report)
    return 0


def _interrupt(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt
