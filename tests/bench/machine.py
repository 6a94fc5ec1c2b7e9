"""The machine that a benchmark ran on: a figure without its machine says little."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """The machine, as far as it tells."""
    return {
        "processor": _find(r"^model name\s*: (.+)$", "/proc/cpuinfo") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(_find(r"^MemTotal:\s*(\d+) kB$", "/proc/meminfo") or 0) / 2**20, 1),
        "load_at_start": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _find(pattern: str, path: str) -> str | None:
    try:
        match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None
