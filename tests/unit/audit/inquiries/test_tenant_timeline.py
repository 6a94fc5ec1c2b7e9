"""What happened to a tenant, in order, with what was new and what was refused."""

from __future__ import annotations

from gateway.audit.inquiries import TenantTimeline
from gateway.audit.inquiries import tenant_timeline as module
from tests.known_log import PROBER, RECORDS_OF, WAITING


def lines_of(records, tenant, tenant_record=None):
    timeline = TenantTimeline(tenant, tenant_record)
    for record in records:
        timeline.take(record)
    return timeline


def test_refusals_come_hour_by_hour_and_changes_one_by_one_with_their_result(known_records):
    lines = lines_of(known_records, "globex").lines
    assert [(one.what, one.key_id, one.count) for one in lines] == [
        ("refused", PROBER, 40),
        ("refused", WAITING, 1),
        ("change", None, 0),
        ("new-key", WAITING, 0),
        ("new-network", WAITING, 0),
        ("new-model", WAITING, 0),
        ("reads", None, 1),
    ]
    assert lines[2].result == "done"
    assert lines[-1].bytes == 1000


def test_a_network_and_a_model_are_new_once(known_records):
    lines = lines_of(known_records, "acme").lines
    new = [one.text for one in lines if one.what == "new-network"]
    assert [text.partition(":")[0] for text in new] == ["10.1.2.0/24", "203.0.113.0/24"]
    assert len([one for one in lines if one.what == "new-model"]) == 22


def test_another_record_of_that_name_has_a_timeline_of_its_own(known_records):
    assert lines_of(known_records, "acme", "ten_other0000001").lines == []
    of_record = lines_of(known_records, "acme", RECORDS_OF["acme"]).lines
    assert of_record == lines_of(known_records, "acme").lines


def test_lines_beyond_the_bound_are_counted_as_left_out(known_records, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINES", 5)
    timeline = lines_of(known_records, "acme")
    assert len(timeline.lines) == 5
    assert timeline.left_out > 0
