from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.facts import Grant
from gateway.model.periods import (
    PeriodClock,
    PeriodLeaf,
    PeriodState,
    Span,
    moment_text,
    period_text,
    state_at,
)
from gateway.model.stamps import Leaf, Stamp

IN_FORCE, NOT_YET, ENDED = PeriodState.IN_FORCE, PeriodState.NOT_YET, PeriodState.ENDED


class Clock:
    def __init__(self, time=0.0):
        self.time = time

    def now(self):
        return self.time


@pytest.mark.parametrize(
    ("now", "state"),
    [(9.999, NOT_YET), (10.0, IN_FORCE), (19.999, IN_FORCE), (20.0, ENDED), (math.inf, ENDED)],
)
def test_a_period_has_its_beginning_and_not_its_end(now, state):
    assert state_at(10.0, 20.0, now) is state


def test_a_clock_without_a_finite_time_is_within_no_period():
    for time in (math.nan, math.inf, -math.inf):
        clock = PeriodClock(Clock(time))
        now = clock.now()
        for period in ((10.0, None), (None, 20.0), (-math.inf, math.inf)):
            assert state_at(*period, now, clock.latest) is not IN_FORCE
        assert state_at(None, None, now, clock.latest) is IN_FORCE


def test_without_a_clock_nothing_that_begins_or_ends_is_in_force():
    clock = PeriodClock(None)
    assert state_at(None, 20.0, clock.now(), clock.latest) is ENDED
    assert state_at(10.0, None, clock.now(), clock.latest) is NOT_YET


def test_a_clock_that_is_set_back_revives_nothing_that_ended_and_ends_what_has_not_begun():
    assert state_at(None, 20.0, 15.0, latest=20.0) is ENDED
    assert state_at(10.0, None, 9.0, latest=30.0) is NOT_YET


times = st.none() | st.floats(0, 100)


@given(st.lists(st.tuples(times, times), max_size=4), st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_within_a_span_nothing_changes_its_state(periods, now, seen, later):
    latest = max(now, seen)
    span = Span.around([begin for begin, _ in periods], [end for _, end in periods], now, latest)
    assert span.holds(now, latest)
    latest_later = max(latest, later)
    if span.holds(later, latest_later):
        for begin, end in periods:
            assert state_at(begin, end, now, latest) is state_at(begin, end, later, latest_later)


def leaf_over(clock, begins=(), ends=()):
    inner = Leaf(b"name", b"value")
    periods = PeriodClock(clock)
    span = Span.around(begins, ends, periods.now(), periods.latest)
    return inner, PeriodLeaf(inner, "said", span, periods)


def test_a_leaf_is_over_at_the_moment_and_stays_so():
    clock = Clock(5.0)
    _, leaf = leaf_over(clock, ends=[10.0])
    stamp = Stamp(1, (leaf,))
    clock.time = 9.999
    assert stamp.is_current
    clock.time = 10.0
    assert not stamp.is_current
    clock.time = 5.0
    assert not stamp.is_current


def test_a_leaf_is_over_when_something_begins_and_when_it_has_not_begun_any_more():
    clock = Clock(5.0)
    _, before = leaf_over(clock, begins=[10.0])
    clock.time = 10.0
    assert not before.is_current
    _, after = leaf_over(clock, begins=[10.0])
    assert after.is_current
    clock.time = 9.0
    assert not after.is_current


def test_what_ended_does_not_make_answers_useless_while_the_clock_is_behind():
    """Without this, a worker whose clock was set back would withdraw each answer that it just computed."""
    clock = Clock(50.0)
    periods = PeriodClock(clock)
    periods.now()
    clock.time = 5.0
    inner = Leaf(b"name", b"value")
    span = Span.around([10.0], [40.0], periods.now(), periods.latest)
    leaf = PeriodLeaf(inner, "said", span, periods)
    assert leaf.is_current
    clock.time = 10.0
    assert not leaf.is_current


def test_a_leaf_is_over_with_its_record():
    inner, leaf = leaf_over(Clock())
    assert leaf.is_current
    inner.is_current = False
    assert not leaf.is_current
    inner.is_current = True
    assert not leaf.is_current


def test_it_can_be_told_apart_from_leaves_that_only_a_change_ends():
    inner, leaf = leaf_over(Clock())
    assert (inner.ends_by_time, leaf.ends_by_time) == (False, True)


def test_times_are_shown_in_utc_and_to_a_fraction_only_where_there_is_one():
    grant = Grant(grant_id="g", actions=frozenset({"read"}), not_before=0.0, expires_at=1.5)
    assert period_text(grant) == "from 1970-01-01T00:00:00Z until 1970-01-01T00:00:01.500000Z"
    assert moment_text(4e12) == "4e+12 seconds after 1970"
