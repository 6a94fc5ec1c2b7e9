"""What the worst input of each parser costs, within its bounds.

Each is parsed alone, in this process, several times; the figure of a parser is the least time of its worst
input. SECURITY.md lists them beside the bounds.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from program import amount_of, arguments_of, run
from worst import PARSERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from report import Report

FULL, QUICK, SMOKE = 1.0, 0.1, 0.0  # seconds of reading one input again and again, once at least


def least_milliseconds(read: Callable[[], object], seconds: float) -> float:
    """The least of many, in time of this thread: what the machine does beside it is not the input's."""
    read()
    least, ends = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.thread_time()
        read()
        least = min(least, time.thread_time() - started)
        if time.perf_counter() >= ends:
            return least * 1000


def measure(report: Report, seconds: float) -> None:
    """Each parser with each of its inputs."""
    for make in PARSERS:
        parser = make()
        took = {name: least_milliseconds(read, seconds) for name, read in parser.inputs.items()}
        worst = max(took, key=lambda name: took[name])
        where = ", off the loop" if parser.is_aside else ""
        meaning = f"{worst}; from {parser.fed_by}; at most {parser.bound}{where}"
        report.figure(f"{parser.name}_ms", took[worst], meaning=meaning)
        for name, milliseconds in took.items():
            report.row(f"{parser.name}: {name}", milliseconds, "ms")


def main() -> int:
    """Measure and print."""
    chosen = arguments_of(__doc__ or "", "a tenth of the time for each").parse_args()
    seconds = amount_of(chosen, full=FULL, quick=QUICK, smoke=SMOKE)
    return run("Worst inputs", lambda report: measure(report, seconds), chosen)


if __name__ == "__main__":
    sys.exit(main())
