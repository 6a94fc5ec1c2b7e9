"""The alerts: that Prometheus takes them, that each fires when it should, and not otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from alert_cases import CASES

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
RUNBOOK = DEPLOY.parent / "docs" / "operators" / "runbook.md"
RULES = [one for group in yaml.safe_load(ALERTS.read_text())["groups"] for one in group["rules"]]
NAMES = [one["alert"] for one in RULES]


def test_prometheus_takes_the_rules_and_the_configuration(run_tool):
    run_tool("promtool", "check", "rules", ALERTS, package="prometheus")
    run_tool("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yaml", package="prometheus")


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    assert len(set(NAMES)) == len(NAMES)
    for is_firing in (True, False):
        assert {case.alert for case in CASES if case.fires is is_firing} == set(NAMES)


def document(cases):
    """The cases, as `promtool test rules` reads them: how many alerts of that name fire."""
    return {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": values} for series, values in case.series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) > bool 0',
                        "eval_time": case.at,
                        "exp_samples": [{"labels": "{}", "value": 1}] if case.fires else [],
                    }
                ],
            }
            for case in cases
        ],
    }


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_fires_on_what_it_is_for_and_on_nothing_else(alert, run_tool, tmp_path):
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump(document([case for case in CASES if case.alert == alert])))
    assert "SUCCESS" in run_tool("promtool", "test", "rules", file, package="prometheus")


def test_a_case_that_is_wrong_is_noticed(run_tool, tmp_path):
    """The tool compares: else a mistake in how cases are written would make all of them pass."""
    for case in CASES[:3]:
        file = tmp_path / "cases.yaml"
        file.write_text(yaml.safe_dump(document([case._replace(fires=not case.fires)])))
        run_tool("promtool", "test", "rules", file, package="prometheus", is_content=False)


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_each_alert_leads_to_its_section_of_the_runbook(rule):
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (page, anchor) == ("docs/operators/runbook.md", rule["alert"].lower())
    assert rule["labels"]["severity"] in {"page", "ticket"}
    _, found, rest = RUNBOOK.read_text().partition(f"\n### {rule['alert']}\n")
    assert found
    text = rest.partition("\n### ")[0]
    told = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    assert told == ["What it means.", "How to see it.", "What to do."]


def test_the_runbook_has_no_section_of_an_alert_that_is_not_there():
    assert re.findall(r"^### (Cachegate\w+)$", RUNBOOK.read_text(), re.MULTILINE) == NAMES
