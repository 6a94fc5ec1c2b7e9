"""The dashboard: Prometheus reads each query, and Grafana what it needs to draw it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / "deploy" / "grafana" / "cachegate.json"
DASHBOARD = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def filled(query):
    """A query as Grafana sends it: its variables replaced."""
    return query.replace("$instance", ".*").replace("$__rate_interval", "1m")


def test_prometheus_reads_every_query(run_tool, tmp_path):
    rules = [{"record": f"query:{at}", "expr": filled(query)} for at, query in enumerate(QUERIES)]
    assert "$" not in "".join(rule["expr"] for rule in rules)
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    said = run_tool("promtool", "check", "rules", file, package="prometheus")
    assert f"{len(QUERIES)} rules found" in said


def test_no_panel_lies_on_another_or_beyond_the_edge():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)


def test_queries_go_to_the_data_source_that_is_chosen_and_to_no_other():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert {one["name"] for one in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}
    for panel in PANELS:
        assert all(one["datasource"] == chosen for one in (panel, *panel["targets"]))
