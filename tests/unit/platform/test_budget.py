"""The rate limit of requests about unknown keys, with a clock of the test's own."""

from __future__ import annotations

from gateway.platform.budget import BURST_SECONDS, SHARE_OF_ONE_SOURCE, Budget


class World:
    def __init__(self, per_second):
        self.time = 1000.0
        self.budget = Budget(per_second=per_second, now=lambda: self.time)

    def take_all(self, source):
        """Take all tokens that are left for a source now."""
        return next(taken for taken in range(100_000) if not self.budget.take(source))


def test_a_source_has_its_burst_and_then_its_rate():
    world = World(per_second=50)
    assert world.take_all("a") == 50 / SHARE_OF_ONE_SOURCE * BURST_SECONDS == 20
    world.time += 0.99 / 5
    assert not world.budget.take("a")
    world.time += 0.02 / 5
    assert world.budget.take("a")
    assert not world.budget.take("a")
    world.time += 1.0
    assert world.take_all("a") == 5


def test_one_source_takes_nothing_from_another():
    world = World(per_second=50)
    world.take_all("a")
    assert world.take_all("b") == 20


def test_all_sources_together_have_no_more_than_the_total():
    world = World(per_second=50)
    assert sum(world.take_all(f"source {number}") for number in range(50)) == 50 * BURST_SECONDS
    world.time += 1.0
    assert sum(world.take_all(f"new {number}") for number in range(50)) == 50


def test_a_source_that_is_refused_for_the_total_keeps_its_own():
    world = World(per_second=10)
    for number in range(100):
        world.take_all(f"source {number}")
    for _ in range(100):
        assert not world.budget.take("late")
    world.time += 1.0
    assert world.take_all("late") == 4  # its burst, as if it had never asked


def test_a_small_budget_lets_somebody_through_all_the_same():
    world = World(per_second=1)
    assert world.budget.take("a")
    assert not world.budget.take("a")
    world.time += 10.0
    assert world.budget.take("a")


def test_a_rest_fills_no_more_than_the_burst():
    world = World(per_second=50)
    world.take_all("a")
    world.time += 86_400.0
    assert world.take_all("a") == 20
    world.time += 86_400.0
    assert sum(world.take_all(f"source {number}") for number in range(50)) == 50 * BURST_SECONDS


def test_sources_are_forgotten_and_never_more_than_the_total_has_let_in():
    world, most = World(per_second=50), 0
    for number in range(20_000):
        world.budget.take(f"source {number}")
        world.time += 0.001
        most = max(most, len(world.budget))
    assert most <= 50 * BURST_SECONDS * 2
    world.time += BURST_SECONDS
    world.budget.take("last")
    assert len(world.budget) == 1


def test_whoever_is_refused_is_not_remembered():
    world = World(per_second=1)
    for number in range(1000):
        world.budget.take(f"source {number}")
    assert len(world.budget) <= BURST_SECONDS
