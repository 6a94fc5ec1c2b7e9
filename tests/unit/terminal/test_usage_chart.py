"""The drawing of a report is XML with axes, units and a legend, whatever the names in the log are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from gateway.audit.usage.usage_report import ReportedDay, UsageReport
from gateway.terminal.usage_chart import REFUSALS, nice_step, usage_chart

SVG = "{http://www.w3.org/2000/svg}"


def report(*days: ReportedDay) -> UsageReport:
    return UsageReport(
        tenant="acme", since=None, until=None, days=list(days), models=[], keys=[], refusals={}, networks={}
    )


def texts(root):
    return [one.text for one in root.iter(f"{SVG}text")]


def test_it_has_axes_with_units_and_days_and_a_legend():
    days = [
        ReportedDay(day="2026-11-05", reads=40, bytes=3_000_000, refusals=10),
        ReportedDay(day="2026-11-06", reads=80, runs=20, bytes=9_000_000),
    ]
    root = ET.fromstring(usage_chart(report(*days), "Usage"))
    found = texts(root)
    assert {"reads", "runs by an inference server", "refusals", "bytes sent"} <= set(found)
    assert {"2026-11-05", "2026-11-06", "Requests a day", "Sent a day (MB)", "0", "25", "100", "10"} <= set(
        found
    )
    refused = [one for one in root.iter(f"{SVG}rect") if one.get("fill") == REFUSALS]
    bar = next(one for one in refused if one.find(f"{SVG}title") is not None)
    assert bar.find(f"{SVG}title").text == "2026-11-05: 10 refusals"
    assert float(bar.get("height")) == pytest.approx(20)  # 10 of 100, of a panel of 200


@pytest.mark.parametrize("title", ["<script>", "a & b", 'x" onload="y', "\x00\x1b[31m", "\ud800"])
def test_a_name_cannot_be_more_than_text(title):
    root = ET.fromstring(usage_chart(report(), title))
    assert not list(root.iter(f"{SVG}script"))
    assert root.get("onload") is None


def test_a_year_has_few_labels():
    days = [ReportedDay(day=f"2026-{one // 28 + 1:02}-{one % 28 + 1:02}", reads=one) for one in range(336)]
    root = ET.fromstring(usage_chart(report(*days), "Usage"))
    assert len([one for one in texts(root) if one.startswith("2026-")]) <= 24


def test_a_time_without_anything_says_so():
    assert "Nothing in this time." in texts(ET.fromstring(usage_chart(report(), "Usage")))


@pytest.mark.parametrize(
    ("largest", "step"), [(0, 1), (1, 1), (3, 1), (10, 3), (40, 10), (90, 25), (1000, 250), (7e9, 2e9)]
)
def test_grid_lines_have_round_distances(largest, step):
    assert nice_step(largest) == step
