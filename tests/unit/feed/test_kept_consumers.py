"""A named reader goes on where it acknowledged last, and retention waits for what it has not."""

from __future__ import annotations

import pytest

from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.keeping.needs import read_needs
from gateway.feed.kept_consumers import KeptConsumers
from gateway.model.errors import Reason, Refusal


@pytest.fixture
def registry(live):
    return ConsumerRegistry(live.folder)


@pytest.fixture
def kept(live, registry):
    registry.add("siem", "feed", now="2030-01-31T12:00:00.000000Z")
    return KeptConsumers(live.folder, registry, live.reader(), live.audit.clock)


def written(live, count=3):
    for _ in range(count):
        live.record()
    return live.reader().read(live.reader().start(), 1000).records


def test_what_was_acknowledged_is_where_it_goes_on_also_after_a_restart(live, registry, kept):
    records = written(live)
    assert kept.resume("siem", acknowledged=None) is None
    assert kept.resume("siem", acknowledged=records[1].cursor) == records[1].cursor
    again = KeptConsumers(live.folder, registry, live.reader(), live.audit.clock)
    assert again.resume("siem", acknowledged=None) == records[1].cursor
    assert again.resume("siem", acknowledged=records[0].cursor) == records[0].cursor, "it may go back"


def test_retention_waits_for_what_was_not_acknowledged_and_for_nothing_else(live, kept):
    records = written(live)
    kept.resume("siem", acknowledged=records[-2].cursor)
    needs = read_needs(live.folder)["siem"]
    last, before = records[-1].record, records[-2].record
    assert needs.needs(last.chain, last.seq, last.time)
    assert not needs.needs(before.chain, before.seq, before.time)


def test_its_lag_is_what_it_has_not_acknowledged_and_goes_on_while_it_is_away(live, registry, kept):
    records = written(live)
    kept.resume("siem", acknowledged=records[-1].cursor)
    assert registry.find("siem").progress.lag_records == 0
    written(live, 2)
    live.audit.clock.time += 100
    kept.refresh()
    progress = registry.find("siem").progress
    assert progress.lag_records == 2
    assert progress.lag_seconds > 99


@pytest.mark.parametrize("name", ["nobody", "../siem", "", "pushed"])
def test_a_name_that_no_operator_registered_for_the_feed_is_refused(registry, kept, name):
    registry.add("pushed", "push", now="2030-01-31T12:00:00.000000Z")
    with pytest.raises(Refusal) as caught:
        kept.resume(name, acknowledged=None)
    assert caught.value.reason is Reason.MALFORMED_QUERY


def test_one_that_was_removed_is_refused_and_stays_removed(live, registry, kept):
    records = written(live)
    registry.remove("siem")
    with pytest.raises(Refusal):
        kept.resume("siem", acknowledged=records[0].cursor)
    assert registry.find("siem") is None
    assert "siem" not in read_needs(live.folder)


def test_what_another_worker_noted_meanwhile_is_not_taken_back(live, registry, kept, monkeypatch):
    records = written(live)
    kept.resume("siem", acknowledged=records[0].cursor)
    other = KeptConsumers(live.folder, ConsumerRegistry(live.folder), live.reader(), live.audit.clock)
    load_all = registry.load_all

    def load_and_be_late():
        found = load_all()
        other.resume("siem", acknowledged=records[2].cursor)
        return found

    monkeypatch.setattr(registry, "load_all", load_and_be_late)
    live.audit.clock.time += 100
    kept.refresh()
    assert kept.resume("siem", acknowledged=None) == records[2].cursor
