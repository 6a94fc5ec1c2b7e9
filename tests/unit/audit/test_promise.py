"""The signer's promise: at no time are more than 1,000 records, or records older than 10 s, unsigned."""

from __future__ import annotations

import fcntl
import json
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.audit import Limits
from gateway.audit.promise import PROMISED_RECORDS, PROMISED_SECONDS, promise_after
from gateway.audit.record import parse_line
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.verdicts import Change
from tests.examples import examples


def _records(audit):
    return [json.loads(line) for line in audit.lines()]


def assert_kept(records, *, most=PROMISED_RECORDS, seconds=PROMISED_SECONDS):
    """At most `most` records follow each head, none earlier than it, or more than `seconds` later."""
    head = None
    for record in records:
        if record["kind"] == "head":
            head = record
        elif head is not None:
            assert record["seq"] - head["seq"] <= most
            passed = datetime.fromisoformat(record["time"]) - datetime.fromisoformat(head["time"])
            assert timedelta(0) <= passed <= timedelta(seconds=seconds), (head, record)


def _admissions(audit, count):
    return [audit.held_admission() for _ in range(count)]


def test_a_head_comes_before_the_record_that_would_be_one_too_many(audit):
    log = audit.open()
    audit.write(log, 2 * PROMISED_RECORDS + 5)
    heads = [record["seq"] for record in _records(audit) if record["kind"] == "head"]
    assert heads == [2, 2 + PROMISED_RECORDS + 1, 2 + 2 * (PROMISED_RECORDS + 1)]
    assert_kept(_records(audit))


@pytest.mark.parametrize("count", [1, 9, 10, 11, 35])
def test_records_that_are_written_at_once_have_heads_among_them(audit, count):
    log = audit.open(head_records=10, on_left=lambda: None)
    receipts = log.record_all(_admissions(audit, count))
    assert_kept(_records(audit), most=10)
    for receipt in receipts:
        receipt.close(audit.outcome())  # deferred to the next write
    log.record_all(_admissions(audit, count))
    assert_kept(_records(audit), most=10)
    log.close()
    report = audit.verify()
    assert (report.is_intact, report.unproven) == (True, 0)


def test_after_a_silence_a_head_comes_first(audit):
    log = audit.open()
    for silence in (3, 9.99, 10, 3600):
        audit.clock.time += silence
        log.reject(audit.denial())
    assert_kept(_records(audit))
    assert [record["kind"] for record in _records(audit)[-2:]] == ["head", "decision"]


def test_a_silent_log_does_not_grow(audit):
    log = audit.open()
    log.reject(audit.denial())
    audit.clock.time += 11
    log.tick(audit.clock.now())
    before = audit.lines()
    for _ in range(5):
        audit.clock.time += 11
        log.tick(audit.clock.now())
        assert log.is_healthy()
    assert audit.lines() == before
    assert audit.verify().unproven == 0


def test_a_clock_that_is_set_back_or_forward_has_a_head_first(audit):
    log = audit.open()
    for step in (1, -3600, 1, 7200, -1, 0.5, -0.001):
        audit.clock.time += step
        log.reject(audit.denial())
        log.change(Change(actor="cli:root", action="x", received_at=1.0)).close(generation=1, result="done")
    assert_kept(_records(audit))


def test_outcomes_that_waited_for_a_full_disk_carry_the_time_at_which_they_were_written(audit, monkeypatch):
    log = audit.open(on_left=lambda: None)
    [receipt] = log.record_all(_admissions(audit, 1))
    receipt.close(audit.outcome())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.audit.segment.write_whole", full)
        with pytest.raises(Unavailable):
            log.flush()
    audit.clock.time += 3600
    log.reject(audit.denial())
    assert_kept(_records(audit))
    assert [record["kind"] for record in _records(audit)].count("outcome") == 1


def test_it_is_kept_while_another_process_holds_the_heads_file(audit):
    log = audit.open(head_records=10)
    heads = audit.folder / "heads.jsonl"
    with heads.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        audit.write(log, 45)
        listed = len(heads.read_bytes().splitlines())
        assert_kept(_records(audit), most=10)
        report = audit.verify()
        assert (report.is_intact, report.problems) == (True, ())
        assert report.unproven < 10
    audit.write(log, 1)
    assert len(heads.read_bytes().splitlines()) == listed + 4
    log.close()
    assert audit.verify().unproven == 0


def test_a_heads_file_that_is_held_for_hours_stops_the_log_until_it_is_free(audit, monkeypatch):
    monkeypatch.setattr("gateway.audit.writer.MOST_UNLISTED_HEADS", 3)
    log = audit.open(head_records=2)
    with (audit.folder / "heads.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            audit.write(log, 20)
        assert_kept(_records(audit), most=2)
    audit.write(log, 5)
    log.close()
    assert audit.verify().is_intact


STEPS = st.one_of(
    st.tuples(st.just("pass"), st.floats(-20, 20)),
    st.tuples(st.just("admit"), st.integers(1, 25)),
    st.tuples(st.sampled_from(["reject", "nobody", "change", "tick", "check", "flush", "close"]), st.just(0)),
)


@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=25))
def test_it_is_kept_whatever_is_recorded_and_whatever_the_clock_does(audit, tmp_path_factory, steps):
    audit.folder = tmp_path_factory.mktemp("promise") / "audit"
    log = audit.open(head_records=7, segment_bytes=6000, anonymous_per_source=2, on_left=lambda: None)
    open_receipts = []
    for step, value in steps:
        if step == "pass":
            audit.clock.time += value
        elif step == "admit":
            open_receipts += log.record_all(_admissions(audit, value))
        elif step == "reject":
            log.reject(audit.denial())
        elif step == "nobody":
            for _ in range(5):
                log.reject(audit.nobody())
        elif step == "change":
            log.change(Change(actor="x", action="y", received_at=1.0)).close(generation=1, result="done")
        elif step == "tick":
            log.tick(audit.clock.now())
        elif step == "check":
            log.check()
        elif step == "flush":
            log.flush()
        else:
            while open_receipts:
                open_receipts.pop().close(audit.outcome())
        assert_kept(_records(audit), most=7)
    report = audit.verify()
    assert report.is_intact
    assert report.unproven <= 7
    log.close()


@pytest.mark.parametrize("more", [{"head_records": PROMISED_RECORDS + 1}, {"head_seconds": 10.5}])
def test_limits_beyond_the_promise_are_refused(more):
    with pytest.raises(Misconfigured):
        Limits(**more)


def test_the_numbers_are_those_that_the_documents_name():
    assert (
        (Limits().head_seconds, Limits().head_records) == (PROMISED_SECONDS, PROMISED_RECORDS) == (10, 1000)
    )


def test_a_head_of_an_earlier_release_is_judged_by_what_that_release_kept(audit):
    audit.open().close()
    now = parse_line(audit.lines()[1])
    before = replace(now, listed_bytes=None, listed_hash=None)
    assert promise_after(now).last_seq == now.seq + PROMISED_RECORDS
    assert promise_after(before).last_seq == now.seq + 2 * PROMISED_RECORDS
    assert promise_after(before).covers(now.seq + 1, "1999-01-01T00:00:00.000000Z")
    assert not promise_after(now).covers(now.seq + 1, "1999-01-01T00:00:00.000000Z")


def test_a_head_whose_time_is_none_leaves_room_for_nothing(audit):
    audit.open().close()
    head = replace(parse_line(audit.lines()[1]), time="yesterday")
    assert not promise_after(head).covers(head.seq + 1, "yesterday")
