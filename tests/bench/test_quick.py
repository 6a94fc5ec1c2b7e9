"""Every benchmark still runs, and measures what the README tells. How large a figure is, is not asked."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = (HERE.parents[1] / "README.md").read_text()
TOLD = set(re.findall(r"^\| `([a-z0-9_]+)` \|", README[README.index("## Numbers") :], re.MULTILINE))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("freshness", marks=pytest.mark.slow),
        pytest.param("scan", marks=pytest.mark.slow),
        pytest.param("delivery", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
        pytest.param("engine", marks=[pytest.mark.engine, pytest.mark.timeout(600)]),
    ],
)
def test_it_measures_what_the_readme_tells(name, tmp_path):
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", "--quick", "--json", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["figures"]
    assert figures
    assert all(math.isfinite(value) for value in figures.values())
    assert figures.keys() <= TOLD
