"""The result of a benchmark: figures with fixed names, rows for people, and both as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machine import describe_machine
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

console = Console(stderr=True, highlight=False)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of all values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * share // 1).__int__() - 1))]


@dataclass
class Report:
    """All that was measured."""

    title: str
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=describe_machine)

    def figure(self, name: str, value: float, *, target: float | None = None, meaning: str = "") -> None:
        """One figure, rounded as far as it means something."""
        self.figures[name] = round(value, 4)
        self.rows.append(
            {"name": name, "value": round(value, 4), "target": target, "what": meaning, "is_figure": True}
        )

    def row(self, name: str, value: float, what: str) -> None:
        """Something beside the figures that helps to read them."""
        self.rows.append({"name": name, "value": round(value, 4), "what": what})

    def spread(self, name: str, values: Sequence[float], what: str) -> None:
        """How values lie: median, the 99th and 99.9th in a hundred, the largest, and how many there were."""
        for suffix, share in (("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)):
            self.row(f"{name}_{suffix}", quantile(values, share), f"{what} (of {len(values):,})")

    def end(self) -> None:
        """Note what the machine was busy with at the end: nothing more is measured."""
        self.machine["load_at_end"] = round(os.getloadavg()[0], 1)

    def print(self) -> None:
        """Tables for people."""
        about = self.machine
        table = Table(
            title=self.title,
            caption=f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, "
            f"{about['system']}, Python {about['python']}, "
            f"load {about['load_at_start']:.1f} at the start and {about['load_at_end']:.1f} at the end",
            title_justify="left",
            caption_justify="left",
            box=None,
        )
        for column in ("", "measured", "target", "what"):
            table.add_column(column, justify="right" if column in {"measured", "target"} else "left")
        for row in self.rows:
            style = "bold" if row.get("is_figure") else ""
            target = "" if row.get("target") is None else f"{row['target']:g}"
            table.add_row(row["name"], f"{row['value']:,g}", target, row["what"], style=style)
        Console(highlight=False).print(table)

    def write(self, file: Path | None) -> None:
        """The same for machines."""
        if file is not None:
            document = {"figures": self.figures, "rows": self.rows, "machine": self.machine}
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
