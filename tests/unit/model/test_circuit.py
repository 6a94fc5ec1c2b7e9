from __future__ import annotations

import pytest

from gateway.model.circuit import FAILURES, LONGEST_PAUSE_SECONDS, SHORTEST_SHARE, Circuit


class World:
    def __init__(self):
        self.time = 0.0
        self.circuit = Circuit(now=lambda: self.time, chance=lambda: 1.0)

    def fail(self, times=1):
        for _ in range(times):
            entered = self.circuit.enter()
            assert entered is not None
            self.circuit.fail(entered)


@pytest.fixture
def world():
    return World()


def test_fewer_failures_than_the_limit_leave_it_closed(world):
    world.fail(FAILURES - 1)
    assert world.circuit.enter() is not None
    assert not world.circuit.is_open


def test_a_success_between_failures_counts_them_anew(world):
    world.fail(FAILURES - 1)
    world.circuit.succeed(world.circuit.enter())
    world.fail(FAILURES - 1)
    assert not world.circuit.is_open


def test_failures_in_a_row_open_it_for_a_moment(world):
    world.fail(FAILURES)
    assert world.circuit.is_open
    assert world.circuit.enter() is None
    world.time = 0.99
    assert world.circuit.enter() is None
    world.time = 1.0
    assert world.circuit.enter() is not None


def test_one_may_try_at_a_time(world):
    world.fail(FAILURES)
    world.time = 1.0
    trial = world.circuit.enter()
    assert world.circuit.enter() is None
    world.circuit.leave(trial)
    assert world.circuit.enter() is not None


def test_a_trial_that_succeeds_closes_it(world):
    world.fail(FAILURES)
    world.time = 1.0
    world.circuit.succeed(world.circuit.enter())
    assert not world.circuit.is_open
    world.fail(FAILURES - 1)
    assert not world.circuit.is_open


def test_each_failed_trial_doubles_the_pause_up_to_a_limit(world):
    world.fail(FAILURES)
    pauses = []
    for _ in range(8):
        since = world.time
        while world.circuit.enter() is None:
            world.time += 0.5
        pauses.append(world.time - since)
        world.circuit.fail(world.circuit._round)
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]


def test_a_pause_is_jittered():
    time = 0.0
    circuit = Circuit(now=lambda: time, chance=lambda: 0.0)
    for _ in range(FAILURES):
        circuit.fail(circuit.enter())
    time = SHORTEST_SHARE
    assert circuit.enter() is not None


@pytest.mark.parametrize("outcome", ["fail", "succeed", "leave"])
def test_what_began_before_it_opened_says_nothing_about_the_time_after(world, outcome):
    early = world.circuit.enter()
    world.fail(FAILURES)
    getattr(world.circuit, outcome)(early)
    assert world.circuit.is_open
    world.time = 1.0
    assert world.circuit.enter() is not None
    getattr(world.circuit, outcome)(early)
    assert world.circuit.enter() is None, "the trial is still under way"


def test_its_own_word_opens_it_at_once_and_once(world):
    entered = world.circuit.enter()
    world.circuit.trip()
    world.circuit.trip()
    assert world.circuit.enter() is None
    world.circuit.succeed(entered)  # it began before the circuit opened: it closes nothing
    assert world.circuit.is_open
    world.time = 1.0
    world.circuit.fail(world.circuit.enter())
    world.time = 2.9
    assert world.circuit.enter() is None
    world.time = 3.0
    world.circuit.succeed(world.circuit.enter())
    assert not world.circuit.is_open
