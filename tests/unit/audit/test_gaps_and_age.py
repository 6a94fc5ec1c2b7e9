"""Segments end by age, with a head; and a log that could not be written says so once it can."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager

import pytest

from gateway.audit.report import Verdict
from gateway.model.errors import Unavailable


@contextmanager
def a_full_disk(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kinds(path):
    return [json.loads(line)["kind"] for line in path.read_bytes().splitlines()]


def of_kind(audit, kind):
    return [one for one in map(json.loads, audit.lines()) if one["kind"] == kind]


def test_a_segment_is_closed_at_its_age_with_a_head(audit):
    log = audit.open(segment_seconds=100)
    audit.write(log, 3)
    audit.clock.time += 99
    log.tick(audit.clock.time)
    assert len(audit.segments) == 1
    audit.clock.time += 2
    log.tick(audit.clock.time)  # by time alone, without a request
    assert len(audit.segments) == 2
    assert kinds(audit.segments[0])[-1] == "head"
    audit.write(log, 1)
    log.close()
    assert audit.verify().verdict is Verdict.INTACT


def test_an_empty_segment_does_not_age(audit):
    log = audit.open(segment_seconds=100)
    for _ in range(10):
        audit.clock.time += 101
        log.tick(audit.clock.time)
    assert len(audit.segments) == 2
    log.close()
    assert audit.verify().is_intact


def test_a_clock_that_is_set_back_closes_no_segment(audit):
    log = audit.open(segment_seconds=100)
    audit.write(log, 3)
    audit.clock.time -= 5000
    audit.write(log, 3)
    assert len(audit.segments) == 1
    log.close()
    assert audit.verify().is_intact


def test_a_gap_is_recorded_once_it_is_over(audit):
    log = audit.open()
    audit.write(log, 2)
    began = audit.clock.time
    with a_full_disk(audit.segments[0].stat().st_size + 10):
        for _ in range(4):
            with pytest.raises(Unavailable):
                log.reject(audit.denial())
            audit.clock.time += 1
    assert of_kind(audit, "gap") == []
    log.tick(audit.clock.time)
    log.close()
    [gap] = of_kind(audit, "gap")
    assert gap["refused"] == 4
    assert "largest size" in gap["why"]
    assert audit.verify().verdict is Verdict.INTACT
    assert audit.clock.time - began >= 4


def test_a_gap_survives_a_second_fault_before_it_was_written(audit):
    log = audit.open()
    audit.write(log, 2)
    room = audit.segments[0].stat().st_size + 10
    with a_full_disk(room), pytest.raises(Unavailable):
        log.reject(audit.denial())
    log.check()  # recovers, and the gap waits for the next record
    with a_full_disk(audit.segments[0].stat().st_size + 10), pytest.raises(Unavailable):
        log.reject(audit.denial())
    audit.write(log, 1)
    log.close()
    assert [one["refused"] for one in of_kind(audit, "gap")] == [1, 1]
    assert audit.verify().verdict is Verdict.INTACT


def test_a_new_chain_has_the_gap_of_the_one_that_was_lost(audit):
    log = audit.open(pause_seconds=1)
    audit.write(log, 2)
    audit.segments[0].unlink()
    with pytest.raises(Unavailable):
        log.reject(audit.denial())
    audit.clock.time += 2
    audit.write(log, 1)
    log.close()
    [gap] = of_kind(audit, "gap")
    assert "is gone" in gap["why"]
