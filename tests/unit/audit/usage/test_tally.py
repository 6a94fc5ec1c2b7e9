"""What records say was used is counted right, and nobody can make the counts grow without bound."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.audit.events import read_events
from gateway.audit.record import DecisionRecord, OutcomeRecord, RequestPart, ResourcePart
from gateway.audit.usage import UsageQuery, UsageTally, figures_of
from gateway.audit.usage import tally as counting
from gateway.audit.usage.tally import OTHER, joined, network_of
from tests.known_log import DECOY, FILE_BYTES, GONE, LAPTOP, PROBER, RECORDS_OF, STOLEN

DAY = "2026-11-06"
PLACE = {"schema": 2, "chain": "c", "seq": 1, "prev": "0" * 64, "node": "n"}
ACME = {"tenant": "acme", "tenant_record": RECORDS_OF["acme"]}


def counted(folder) -> UsageTally:
    tally = UsageTally()
    for event in read_events(folder):
        tally.take(event.record)
    return tally


def allow(number: int, *, model: str = "acme/cars/1", key: str = LAPTOP, client="10.1.2.1") -> DecisionRecord:
    return DecisionRecord(
        **PLACE,
        **ACME,
        id=f"id-{number}",
        time=f"{DAY}T10:00:00.000000Z",
        decision="allow",
        reason="permitted",
        key_id=key,
        action="read",
        resource=ResourcePart("file", model, model),
        request=RequestPart("GET", "/", client),
    )


def rows_of(tally, **query):
    return figures_of(sorted(tally.days.values(), key=lambda day: day.day), UsageQuery(**query), most=None)


def test_reads_runs_and_bytes_are_those_of_the_records(known_log):
    figures = rows_of(counted(known_log), tenant="acme")
    assert {(row.key_id, row.tenant_record) for row in figures.usage} == {
        (LAPTOP, RECORDS_OF["acme"]),
        (STOLEN, RECORDS_OF["acme"]),
    }
    of_cars = [row for row in figures.usage if (row.key_id, row.model) == (LAPTOP, "acme/cars/1")]
    assert [(row.reads, row.bytes) for row in of_cars] == [(8, 8 * FILE_BYTES)] * 5
    assert sum(row.runs for row in figures.usage) == 1
    stolen = [row for row in figures.usage if row.key_id == STOLEN and row.day == DAY]
    assert sum(row.reads for row in stolen) == 68
    assert sum(row.bytes for row in stolen) == 68 * FILE_BYTES


def test_refusals_count_for_the_key_that_was_claimed_and_summaries_for_each_refusal(known_log):
    figures = rows_of(counted(known_log))
    refusals = {(one.tenant, one.key_id, one.reason): one.count for one in figures.refusals}
    assert refusals["acme", GONE, "revoked-key"] == 3
    assert refusals[None, DECOY, "decoy-key"] == 1
    assert refusals["globex", PROBER, "not-permitted"] == 40
    assert refusals[None, None, "unknown-key"] == 500


def test_the_names_that_strangers_ask_for_are_not_kept(known_log):
    figures = rows_of(counted(known_log))
    assert not [row for row in figures.usage if "guess" in (row.model or "")]


def test_what_exceeds_a_tenants_bound_is_counted_under_other(monkeypatch):
    monkeypatch.setattr(counting, "MAX_ROWS_OF_TENANT", 5)
    tally = UsageTally()
    for number in range(100):
        tally.take(
            allow(number, model=f"acme/model-{number}/1", key=f"key_{number}", client=f"10.0.{number}.1")
        )
    figures = rows_of(tally)
    assert sum(row.reads for row in figures.usage) == 100
    assert OTHER in {row.key_id for row in figures.usage}
    assert len(figures.usage) < 10
    assert len(tally.days[DAY].tenants) == 1


def test_what_exceeds_the_bound_of_tenants_is_counted_together(monkeypatch):
    monkeypatch.setattr(counting, "MAX_TENANTS", 3)
    tally = UsageTally()
    for number in range(10):
        record = allow(number)
        tally.take(_of_tenant(record, f"tenant-{number}"))
    assert len(tally.days[DAY].tenants) == 4
    assert sum(row.reads for row in rows_of(tally).usage) == 10
    assert sum(row.reads for row in rows_of(tally, tenant=OTHER).usage) == 7


def _of_tenant(record, tenant):
    return replace(record, tenant=tenant)


def test_allows_without_an_outcome_are_bounded_and_an_outcome_without_its_allow_keeps_its_bytes(monkeypatch):
    monkeypatch.setattr(counting, "MAX_PENDING", 10)
    tally = UsageTally()
    for number in range(50):
        tally.take(allow(number))
    assert len(tally.pending) == 10
    for number in range(50):
        tally.take(
            OutcomeRecord(
                **PLACE,
                **ACME,
                id=f"out-{number}",
                time=f"{DAY}T10:00:01.000000Z",
                decision_id=f"id-{number}",
                key_id=LAPTOP,
                ending="complete",
                status=200,
                bytes=7,
            )
        )
    assert not tally.pending
    by_model = {row.model: row.bytes for row in rows_of(tally).usage}
    assert by_model == {"acme/cars/1": 70, None: 280}


def test_two_records_of_one_name_are_two_tenants(known_log):
    tally = counted(known_log)
    tally.take(_of_record(allow(1), "ten_later0000001"))
    own = rows_of(tally, tenant="acme", tenant_record="ten_later0000001", is_of_one_record=True)
    assert [(row.key_id, row.reads) for row in own.usage] == [(LAPTOP, 1)]
    none = rows_of(tally, tenant="acme", tenant_record=None, is_of_one_record=True)
    assert none.usage == []


def _of_record(record, tenant_record):
    return replace(record, tenant_record=tenant_record)


def test_an_answer_says_that_it_was_cut(known_log):
    tally = counted(known_log)
    figures = figures_of(tally.days.values(), UsageQuery(), most=3)
    assert figures.is_cut
    assert len(figures.usage) == 3
    assert not figures_of(tally.days.values(), UsageQuery(tenant="globex", since="2026-11-07"), most=3).is_cut


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2::9", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("unix", "unix"),
        ("", OTHER),
    ],
)
def test_addresses_are_counted_by_the_network_of_a_site(client, network):
    assert network_of(client) == network


def test_a_name_and_a_record_are_taken_apart_as_they_were_joined():
    assert [counting.parted(joined(*one)) for one in [("a", "ten_1"), ("a", None), (None, None)]] == [
        ("a", "ten_1"),
        ("a", None),
        (None, None),
    ]


@pytest.mark.parametrize("time", ["../../../etc/passwdx", "2026-11-06", "0000/11/06T10:00:00.000000Z", ""])
def test_a_time_that_is_none_counts_for_no_day(time):
    tally = UsageTally()
    tally.take(replace(allow(1), time=time))
    assert tally.days == {}
