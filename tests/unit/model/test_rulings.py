from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from gateway.model.errors import Reason
from gateway.model.names import KeyId
from gateway.model.rulings import EndingLeaf, Ruling
from gateway.model.stamps import Leaf, Stamp


@dataclass
class HandClock:
    time: float = 100.0

    def now(self):
        return self.time


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def inner():
    return Leaf(b"a record", b"its value")


def test_it_is_current_until_its_moment_and_not_at_it(clock, inner):
    stamp = Stamp(1, (Leaf(b"other", None), EndingLeaf(inner, 101.0, clock)))
    clock.time = 100.999
    assert stamp.is_current
    clock.time = 101.0
    assert not stamp.is_current


def test_it_is_current_no_longer_than_the_record_is(clock, inner):
    leaf = EndingLeaf(inner, 200.0, clock)
    inner.is_current = False
    assert not leaf.is_current


def test_once_ended_it_stays_so_whatever_the_clock_says(clock, inner):
    leaf = EndingLeaf(inner, 101.0, clock)
    clock.time = 102.0
    assert not leaf.is_current
    clock.time = 50.0
    assert not leaf.is_current


def test_it_can_be_turned_as_any_leaf_can_and_leaves_the_record_alone(clock, inner):
    leaf = EndingLeaf(inner, 200.0, clock)
    leaf.is_current = False
    assert not leaf.is_current
    assert inner.is_current


@pytest.mark.parametrize("until", [math.nan, -math.inf])
def test_a_moment_that_is_none_has_passed(clock, inner, until):
    assert not EndingLeaf(inner, until, clock).is_current


def test_it_is_the_record_to_whoever_reads_it(clock, inner):
    leaf = EndingLeaf(inner, 200.0, clock)
    assert (leaf.name, leaf.value, leaf.decoded) == (b"a record", b"its value", None)


@pytest.mark.parametrize("reason", [Reason.ABSENT, Reason.NOT_PERMITTED, Reason.INTERNAL])
def test_a_ruling_says_only_what_a_platform_says(reason):
    with pytest.raises(ValueError, match="not what a platform says"):
        Ruling(key_id=KeyId("key_000000000001"), model=None, reason=reason, until=1.0, asked=1)
