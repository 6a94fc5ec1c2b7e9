"""What the benchmark programs have in common: their options, an end at any moment, the report.

`--quick` gives figures that mean something, within a minute or two. `--smoke` only says that a program still
runs and which figures it has: their values mean nothing.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from report import Report, console

if TYPE_CHECKING:
    from collections.abc import Callable

Amount = TypeVar("Amount")
INTERRUPTED = 130


def arguments_of(document: str, quick: str) -> argparse.ArgumentParser:
    """Those that every program has. `document` is its docstring; `quick` says what that means for it."""
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    shorter = parser.add_mutually_exclusive_group()
    shorter.add_argument("--quick", action="store_true", help=f"{quick}, within a minute or two")
    shorter.add_argument(
        "--smoke", action="store_true", help="hardly anything of it: that it runs, and no value that counts"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, rows and machine there")
    return parser


def amount_of(chosen: argparse.Namespace, *, full: Amount, quick: Amount, smoke: Amount) -> Amount:
    """How much is measured."""
    if chosen.smoke:
        return smoke
    return quick if chosen.quick else full


def run(
    title: str,
    measure: Callable[[Report], None],
    chosen: argparse.Namespace,
    *,
    draw: Callable[[Report], None] | None = None,
) -> int:
    """Measure, print, write, draw. What was started is stopped, however it ends."""
    signal.signal(signal.SIGTERM, _interrupt)
    report = Report(title + amount_of(chosen, full="", quick=" (quick)", smoke=" (smoke)"))
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
