"""Every benchmark still runs and reports the figures that docs/numbers.md names. Values are not tested.

So they run in their shortest form (`--smoke`), which has all parts of the others.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)  # each starts servers, some of them dozens

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


def run_smoke(tmp_path: Path, name: str, *more: str) -> list[dict]:
    """The rows of a run; its figures are those of the rows that are marked so."""
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, HERE / f"{name}.py", "--smoke", "--json", file, *more],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(file.read_text())
    assert told["figures"] == {row["name"]: row["value"] for row in told["rows"] if row.get("is_figure")}
    assert all(math.isfinite(row["value"]) for row in told["rows"])
    return told["rows"]


def figures(rows: list[dict]) -> set[str]:
    return {row["name"] for row in rows if row.get("is_figure")}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        pytest.param("freshness", (), marks=pytest.mark.slow),
        pytest.param("identity", (), marks=pytest.mark.slow),
        pytest.param("audit_proofs", (), marks=pytest.mark.slow),
        pytest.param("audit_consumers", (), marks=pytest.mark.slow),
        pytest.param("audit_stream", (), marks=pytest.mark.slow),
        pytest.param("audit_usage", (), marks=pytest.mark.slow),
        pytest.param("audit", (), marks=pytest.mark.slow),
        pytest.param("scan", (), marks=pytest.mark.slow),
        pytest.param("worst_inputs", (), marks=pytest.mark.slow),
        pytest.param("manifests", (), marks=pytest.mark.slow),
        pytest.param("delivery", ("--svg", "plot.svg"), marks=pytest.mark.slow),
        pytest.param("frontdoor", ("--svg", "plot.svg"), marks=pytest.mark.server),
        pytest.param("engine", (), marks=pytest.mark.engine),
    ],
)
def test_it_measures_what_the_documents_tell(name, more, tmp_path):
    found = figures(run_smoke(tmp_path, name, *more))
    assert found
    assert found == told()[name]
    assert all((tmp_path / one).stat().st_size > 1000 for one in more[1::2])


@pytest.mark.slow
def test_one_workload_is_measured_alone(tmp_path):
    rows = run_smoke(tmp_path, "delivery", "--only", "head,hidden", "--rounds", "2", "--seconds", "0.1")
    assert figures(rows) == {"head_vs_nginx_auth_request", "slowest_route_vs_hosted_shape"}


@pytest.mark.slow
def test_checks_are_measured_without_the_inference_server(tmp_path):
    rows = run_smoke(tmp_path, "frontdoor", "--checks")
    assert figures(rows) == {"check_vs_nginx_noop", "check_vs_second_nginx"}


@pytest.mark.slow
def test_every_kind_of_refused_key_is_compared_with_an_unknown_one(tmp_path):
    rows = {
        row["name"]: row["value"] for row in run_smoke(tmp_path, "refusals", "--kinds", "revoked", "decoy")
    }
    areas = [value for name, value in rows.items() if name.endswith("_auc")]
    assert len(areas) == 4
    assert all(0.5 <= area <= 1.0 for area in areas)


@pytest.mark.slow
def test_the_stages_of_a_request_add_up_to_its_time(tmp_path):
    rows = run_smoke(tmp_path, "delivery", "--stages", "--only", "varied", "--seconds", "0.5")
    values = {row["name"]: row["value"] for row in rows if not row["name"].endswith("_function_us")}
    whole = values.pop("stages_varied_us")
    assert whole > 0
    assert sum(values.values()) == pytest.approx(whole, abs=0.01)
    assert values["stages_varied_record_and_outcome_us"] > 0  # the table of stages still names the modules
