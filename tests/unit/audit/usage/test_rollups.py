"""Counts beside the index are those of the records, whatever was killed in between, and for whoever reads."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from gateway.audit.events import read_events
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.usage import UsageKeeper, UsageQuery, UsageRollups, UsageTally, figures_of
from gateway.audit.usage import rollups as keeping
from tests.audit_story import FIRST, LAPTOP, NODE, WrittenChain


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


def test_without_roll_ups_a_reader_counts_by_itself(story, reader):
    counted = UsageRollups(story, reader).days()
    assert counted.is_current
    assert in_order(figures_of(counted.days, UsageQuery())) == expected(story)
    assert not keeping.usage_folder(story).exists()


def test_a_reader_that_would_have_to_count_too_much_says_that_it_did_not(story, reader, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_TAIL_RECORDS", 20)
    monkeypatch.setattr(keeping, "PAGE_RECORDS", 10)
    assert not UsageRollups(story, reader).days().is_current
    UsageKeeper(story, reader).follow(10.0)
    assert UsageRollups(story, reader).days().is_current


@pytest.mark.parametrize("limit", [4, 2000])
def test_kept_counts_are_those_of_the_records_in_whatever_steps_they_were_kept(
    story, reader, limit, monkeypatch
):
    monkeypatch.setattr(keeping, "PAGE_RECORDS", limit)
    monkeypatch.setattr(keeping, "OPEN_DAYS", 2)  # so that days leave memory while they are counted
    follow_all(UsageKeeper(story, reader), limit)
    monkeypatch.setattr(keeping, "MAX_TAIL_RECORDS", 0)
    assert told(UsageRollups(story, reader)) == expected(story)
    assert told(UsageRollups(story, reader), key_id=LAPTOP) == expected(story, key_id=LAPTOP)


@pytest.mark.parametrize("killed_after", [3, 40, 120])
def test_a_keeper_that_was_killed_at_any_file_counts_nothing_twice(story, reader, killed_after, monkeypatch):
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
        follow_all(UsageKeeper(story, reader))
    assert told(UsageRollups(story, reader)) == expected(story)
    follow_all(UsageKeeper(story, reader))
    assert told(UsageRollups(story, reader)) == expected(story)


def test_what_is_written_after_the_last_step_is_in_the_answer_and_an_outcome_finds_its_model(
    story, indexer, reader
):
    keeper = UsageKeeper(story, reader)
    keeper.follow(0.0)
    begun = FIRST + timedelta(days=7)
    chain = WrittenChain(story, f"{NODE}.{int(begun.timestamp() * 1000):012x}-0000000c")
    chain.read(begun, LAPTOP, "acme", "acme/cars/1", client="10.1.2.1")
    lines = chain.path.read_bytes().splitlines(keepends=True)
    chain.path.write_bytes(lines[0])
    indexer.step()
    keeper.follow(0.5)  # counted, and not written yet
    rollups = UsageRollups(story, reader)
    assert told(rollups) == expected(story)
    keeper.save(1.0)
    chain.path.write_bytes(b"".join(lines))
    indexer.step()
    assert told(rollups) == expected(story)
    later = UsageKeeper(story, reader)
    later.follow(0.0)
    later.save(2.0)
    assert told(UsageRollups(story, reader)) == expected(story)


def test_an_index_that_was_made_anew_has_its_counts_made_anew(story, indexer, reader):
    UsageKeeper(story, reader).follow(10.0)
    indexer.close()
    for path in (story / "index").iterdir():
        if path.is_file():
            path.unlink()
    anew = Indexer(story, NODE)
    anew.step()
    reader = IndexReader(story, NODE)
    try:
        assert told(UsageRollups(story, reader)) == expected(story)
        UsageKeeper(story, reader).follow(10.0)
        assert told(UsageRollups(story, reader)) == expected(story)
    finally:
        indexer._descriptor = anew._descriptor  # the fixture closes it


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"\x94" * 50])
def test_files_that_do_not_parse_count_as_absent(story, reader, damage):
    UsageKeeper(story, reader).follow(10.0)
    folder = keeping.usage_folder(story)
    (folder / "2026-11-03").write_bytes(damage)
    days = {row.day for row in told(UsageRollups(story, reader)).usage}
    assert days == {"2026-11-02", "2026-11-04", "2026-11-05", "2026-11-06"}
    (folder / keeping.STATE_NAME).write_bytes(damage)
    assert told(UsageRollups(story, reader)) == expected(story)


def test_days_that_are_too_old_are_removed(story, reader, monkeypatch):
    monkeypatch.setattr(keeping, "MAX_DAYS", 2)
    UsageKeeper(story, reader).follow(10.0)
    kept = sorted(path.name for path in keeping.usage_folder(story).iterdir())
    assert kept == ["2026-11-06", "2026-11-08", "state"]
