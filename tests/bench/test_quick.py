"""Every benchmark still runs and reports the figures that docs/numbers.md names. Values are not tested."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = re.compile(r"`\.venv/bin/python tests/bench/(\w+)\.py`")
ROW = re.compile(r"\| `(\w+)` \|")


def told() -> dict[str, set[str]]:
    """The figures of docs/numbers.md by the program that measures them."""
    text = (HERE.parents[1] / "docs/numbers.md").read_text()
    found: dict[str, set[str]] = {}
    current = ""
    for line in text.splitlines():
        if script := SCRIPT.match(line):
            current = script[1]
        elif row := ROW.match(line):
            found.setdefault("engine" if "(engine.py)" in line else current, set()).add(row[1])
    return found


@pytest.mark.parametrize(
    ("name", "more"),
    [
        pytest.param("freshness", (), marks=pytest.mark.slow),
        pytest.param("scan", (), marks=pytest.mark.slow),
        pytest.param("worst_inputs", (), marks=pytest.mark.slow),
        pytest.param("manifests", (), marks=pytest.mark.slow),
        pytest.param("delivery", ("--svg", "plot.svg"), marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("engine", (), marks=[pytest.mark.engine, pytest.mark.timeout(600)]),
    ],
)
def test_it_measures_what_the_documents_tell(name, more, tmp_path):
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", "--quick", "--json", file, *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["figures"]
    assert figures
    assert all(math.isfinite(value) for value in figures.values())
    assert figures.keys() == told()[name]
    assert all((tmp_path / one).stat().st_size > 1000 for one in more[1::2])
