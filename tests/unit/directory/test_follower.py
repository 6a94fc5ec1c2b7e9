from __future__ import annotations

import pytest

from gateway.directory.follower import Follower
from gateway.directory.lease import Lease
from gateway.directory.near_cache import NearCache
from gateway.directory.near_facts import NearFacts
from gateway.model.errors import Unavailable

pytestmark = pytest.mark.anyio

NAME = b"a"
OURS, OTHER = "0" * 32, "f" * 32


class Store:
    async def read(self, names):
        return 1, [b"value" for _ in names]


class Clock:
    def monotonic(self):
        return 100.0


class Memory:
    """What was seen, without a disk; an operator may accept something else."""

    def __init__(self):
        self.seen = None
        self.noted = []

    def accepts(self, history, generation):
        return self.seen is None or (history == self.seen[0] and generation >= self.seen[1])

    def note(self, history, generation):
        self.seen = history, generation
        self.noted.append(self.seen)


@pytest.fixture
def lease():
    return Lease(1.0)


@pytest.fixture
def facts(lease):
    return NearFacts(Store(), NearCache(max_entries=10, max_bytes=1 << 20), lease, Clock())


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def follower(facts, lease, memory):
    return Follower(facts, lease, memory)


async def remembered(facts):
    _, [leaf] = await facts.read([NAME])
    return leaf


async def test_a_feed_a_renewal_and_the_worker_serves(follower, facts, memory):
    follower.connected(5, OURS)
    assert not facts.is_leased()
    follower.renewed(100.0, 5, OURS)
    assert facts.is_leased()
    assert follower.applied_generation == 5
    assert memory.noted == [(OURS, 5)]


async def test_what_was_told_is_acknowledged_only_after_it_was_applied(follower, facts):
    follower.connected(5, OURS)
    leaf = await remembered(facts)
    follower.renewed(100.0, 6, OURS)
    assert (follower.applied_generation, facts.is_leased()) == (5, False)
    follower.changed([NAME])
    assert not leaf.is_current
    follower.applied(6)
    assert (follower.applied_generation, facts.is_leased()) == (6, True)


async def test_a_lost_feed_leaves_what_is_remembered_to_the_lease(follower, facts):
    follower.connected(5, OURS)
    follower.renewed(100.0, 5, OURS)
    leaf = await remembered(facts)
    follower.disconnected()
    assert leaf.is_current
    assert facts.is_leased()


async def test_a_new_feed_begins_with_an_empty_memory(follower, facts):
    follower.connected(5, OURS)
    leaf = await remembered(facts)
    follower.connected(5, OURS)
    assert not leaf.is_current


@pytest.mark.parametrize(("history", "generation"), [(OTHER, 9), (OURS, 4), ("", 0)])
@pytest.mark.parametrize("by", ["connected", "renewed"])
async def test_facts_that_are_not_the_known_ones_end_everything_at_once(
    follower, facts, by, history, generation, memory
):
    follower.connected(5, OURS)
    follower.renewed(100.0, 5, OURS)
    leaf = await remembered(facts)
    if by == "connected":
        follower.connected(generation, history)
    else:
        follower.renewed(100.1, generation, history)
    assert not follower.is_history_known
    assert not leaf.is_current
    assert not facts.is_leased()
    assert not facts.is_fresh(3600.0)  # no degraded time covers facts that may be the wrong ones
    assert follower.applied_generation == 0
    assert memory.noted == [(OURS, 5)]
    with pytest.raises(Unavailable):
        await facts.read([NAME])


async def test_once_they_are_accepted_the_worker_begins_anew_by_itself(follower, facts, memory):
    follower.connected(500, OURS)
    follower.renewed(100.0, 500, OURS)
    follower.connected(7, OTHER)
    memory.seen = (OTHER, 7)
    follower.renewed(100.2, 8, OTHER)
    assert follower.is_history_known
    assert facts.is_leased()
    # Counted in the new history: 500 of the old one would acknowledge what is still to come.
    assert follower.applied_generation == 8
    assert (await remembered(facts)).is_current
