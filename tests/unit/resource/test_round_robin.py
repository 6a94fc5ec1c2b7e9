"""Round-robin: every name comes up, and none twice in one batch."""

from __future__ import annotations

import pytest

from gateway.resource.round_robin import RoundRobin


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 11])
def test_everybody_comes_up_before_anybody_comes_up_again(count):
    names = [f"n{number}" for number in range(10)]
    round_robin, taken = RoundRobin(), []
    while len(taken) < 30:
        turn = round_robin.take(names, count)
        assert len(turn) == len(set(turn)) == min(count, len(names))
        taken += turn
    assert taken[:10] == names
    assert set(taken[10:20]) == set(names)


def test_a_list_that_became_shorter_is_gone_through_all_the_same():
    round_robin = RoundRobin()
    round_robin.take(["a", "b", "c", "d", "e"], 2)
    round_robin.take(["a", "b", "c", "d", "e"], 2)
    assert {name for _ in range(2) for name in round_robin.take(["a", "b", "c"], 2)} == {"a", "b", "c"}
