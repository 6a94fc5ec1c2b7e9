"""A report has every day of its period, and sums that are those of the figures."""

from __future__ import annotations

from gateway.audit.events import read_events
from gateway.audit.usage import UsageQuery, UsageTally, figures_of
from gateway.audit.usage.usage_report import report_of
from tests.known_log import LAPTOP, STOLEN


def figures(folder, **query):
    tally = UsageTally()
    for event in read_events(folder):
        tally.take(event.record)
    return figures_of(sorted(tally.days.values(), key=lambda day: day.day), UsageQuery(**query), most=None)


def test_a_report_sums_up_by_day_model_key_reason_and_network(known_log):
    report = report_of(figures(known_log, tenant="acme"), "acme", None, None)
    assert [(day.day, day.reads, day.runs, day.refusals) for day in report.days] == [
        ("2026-11-02", 16, 0, 0),
        ("2026-11-03", 16, 0, 0),
        ("2026-11-04", 16, 1, 0),
        ("2026-11-05", 16, 0, 0),
        ("2026-11-06", 76, 0, 3),
    ]
    assert [one.name for one in report.keys] == [STOLEN, LAPTOP]
    assert (report.models[0].name, report.models[0].reads) == ("acme/cars/1", 80)
    assert report.refusals == {"revoked-key": 3}
    assert report.networks == {"10.1.2.0/24": 84, "203.0.113.0/24": 60}
    assert (report.total.reads, report.total.bytes) == (140, 141_000)


def test_days_without_anything_are_in_it(known_log):
    report = report_of(figures(known_log, tenant="acme"), "acme", "2026-11-01", "2026-11-08")
    assert report.days[0].day == "2026-11-01"
    assert len(report.days) == 8
    assert report.days[-1].reads == 0


def test_a_report_of_nothing_has_no_day(known_log):
    assert report_of(figures(known_log, tenant="nobody"), "nobody", None, None).days == []
