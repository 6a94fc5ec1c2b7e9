"""Counts beside the index are those of the records, whatever was killed in between, and for whoever reads."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from gateway.audit.events import read_events
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.usage import UsageKeeper, UsageQuery, UsageRollups, UsageTally, figures_of
from gateway.audit.usage import rollups as keeping
from tests.known_log import FIRST, LAPTOP, NODE, WrittenChain


def expected(folder, **query):
    tally = UsageTally()
    for event in read_events(folder):
        tally.take(event.record)
    return in_order(figures_of(tally.days.values(), UsageQuery(**query)))


def follow_all(keeper, limit=5):
    """Count all that is there, and write after each step."""
    now = 10.0
    while keeper.follow(now, limit):
        now += 10.0


def told(rollups, **query):
    return in_order(figures_of(rollups.days().days, UsageQuery(**query)))


def in_order(figures):
    """Its rows in an order that does not depend on what was counted first."""
    rows = {
        name: sorted(getattr(figures, name), key=str) for name in ("usage", "refusals", "networks", "changes")
    }
    return replace(figures, **rows)


def test_without_roll_ups_a_reader_counts_by_itself(known_log, reader):
    counted = UsageRollups(known_log, reader).days()
    assert counted.is_current
    assert in_order(figures_of(counted.days, UsageQuery())) == expected(known_log)
    assert not keeping.usage_folder(known_log).exists()


def test_a_reader_that_would_have_to_count_too_much_says_that_it_did_not(known_log, reader, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_TAIL_RECORDS", 20)
    monkeypatch.setattr(keeping, "PAGE_RECORDS", 10)
    assert not UsageRollups(known_log, reader).days().is_current
    UsageKeeper(known_log, reader).follow(10.0)
    assert UsageRollups(known_log, reader).days().is_current


@pytest.mark.parametrize("limit", [4, 2000])
def test_kept_counts_are_those_of_the_records_in_whatever_steps_they_were_kept(
    known_log, reader, limit, monkeypatch
):
    monkeypatch.setattr(keeping, "PAGE_RECORDS", limit)
    monkeypatch.setattr(keeping, "OPEN_DAYS", 2)  # so that days leave memory while they are counted
    follow_all(UsageKeeper(known_log, reader), limit)
    monkeypatch.setattr(keeping, "MAX_TAIL_RECORDS", 0)
    assert told(UsageRollups(known_log, reader)) == expected(known_log)
    assert told(UsageRollups(known_log, reader), key_id=LAPTOP) == expected(known_log, key_id=LAPTOP)


@pytest.mark.parametrize("killed_after", [3, 40, 120])
def test_a_keeper_that_was_killed_at_any_file_counts_nothing_twice(
    known_log, reader, killed_after, monkeypatch
):
    monkeypatch.setattr(keeping, "PAGE_RECORDS", 5)
    written = 0
    write = UsageKeeper._write

    class KilledError(Exception):
        pass

    def dying(self, name, value):
        nonlocal written
        written += 1
        if written == killed_after:
            raise KilledError
        write(self, name, value)

    monkeypatch.setattr(UsageKeeper, "_write", dying)
    with pytest.raises(KilledError):
        follow_all(UsageKeeper(known_log, reader))
    assert told(UsageRollups(known_log, reader)) == expected(known_log)
    follow_all(UsageKeeper(known_log, reader))
    assert told(UsageRollups(known_log, reader)) == expected(known_log)


def test_what_is_written_after_the_last_step_is_in_the_answer_and_an_outcome_finds_its_model(
    known_log, indexer, reader
):
    keeper = UsageKeeper(known_log, reader)
    keeper.follow(0.0)
    begun = FIRST + timedelta(days=7)
    chain = WrittenChain(known_log, f"{NODE}.{int(begun.timestamp() * 1000):012x}-0000000c")
    (known_log / "live" / chain.chain).touch()  # it goes on
    chain.read(begun, LAPTOP, "acme", "acme/cars/1", client="10.1.2.1")
    lines = chain.path.read_bytes().splitlines(keepends=True)
    chain.path.write_bytes(lines[0])
    while indexer.step():
        pass
    keeper.follow(0.5)  # counted, and not written yet
    rollups = UsageRollups(known_log, reader)
    assert told(rollups) == expected(known_log)
    keeper.save(1.0)
    chain.path.write_bytes(b"".join(lines))
    while indexer.step():
        pass
    assert told(rollups) == expected(known_log)
    later = UsageKeeper(known_log, reader)
    later.follow(0.0)
    later.save(2.0)
    assert told(UsageRollups(known_log, reader)) == expected(known_log)


def test_an_index_that_was_made_anew_has_its_counts_made_anew(known_log, indexer, reader, request):
    UsageKeeper(known_log, reader).follow(10.0)
    for path in (known_log / "index").iterdir():
        if path.is_file():
            path.unlink()
    anew = Indexer(known_log, NODE)
    request.addfinalizer(anew.close)
    while anew.step():
        pass
    reader = IndexReader(known_log, NODE)
    assert told(UsageRollups(known_log, reader)) == expected(known_log)
    UsageKeeper(known_log, reader).follow(10.0)
    assert told(UsageRollups(known_log, reader)) == expected(known_log)


def test_a_process_that_goes_on_with_the_index_goes_on_with_the_counts(known_log, indexer, reader, request):
    follow_all(UsageKeeper(known_log, reader))
    before = {path.name: path.stat().st_ino for path in keeping.usage_folder(known_log).iterdir()}
    again = Indexer(known_log, NODE)
    request.addfinalizer(again.close)
    while again.step():
        pass
    reader = IndexReader(known_log, NODE)
    assert UsageKeeper(known_log, reader).follow(20.0) == 0
    assert {path.name: path.stat().st_ino for path in keeping.usage_folder(known_log).iterdir()} == before
    assert told(UsageRollups(known_log, reader)) == expected(known_log)


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x94" * 50])
def test_files_that_do_not_parse_count_as_absent(known_log, reader, damage):
    UsageKeeper(known_log, reader).follow(10.0)
    folder = keeping.usage_folder(known_log)
    (folder / "2026-11-03").write_bytes(damage)
    days = {row.day for row in told(UsageRollups(known_log, reader)).usage}
    assert days == {"2026-11-02", "2026-11-04", "2026-11-05", "2026-11-06"}
    (folder / keeping.STATE_NAME).write_bytes(damage)
    assert told(UsageRollups(known_log, reader)) == expected(known_log)


def test_days_that_are_too_old_are_removed(known_log, reader, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_DAYS", 2)
    UsageKeeper(known_log, reader).follow(10.0)
    kept = sorted(path.name for path in keeping.usage_folder(known_log).iterdir())
    assert kept == ["2026-11-06", "2026-11-08", "state"]
