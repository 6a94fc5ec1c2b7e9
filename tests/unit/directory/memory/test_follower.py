from __future__ import annotations

import pytest

from gateway.directory.memory.follower import Follower
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.model.errors import Unavailable
from gateway.model.groups import Renewal
from gateway.model.stores import Moment

pytestmark = pytest.mark.anyio

NAME = b"a"
OURS, OTHER = "0" * 32, "f" * 32


def at(generation, history=OURS):
    return Moment(history=history, generation=generation, mark=f"{history[0]}{generation}")


def step(generation):
    return [(generation, at(generation).mark)]


class Store:
    def __init__(self):
        self.moment = at(5)

    def move(self):
        pass

    async def read(self, names):
        return self.moment, [b"value" for _ in names]


class Clock:
    def monotonic(self):
        return 100.0


class Memory:
    """The noted moment, in memory; an operator may accept another history."""

    def __init__(self):
        self.noted = []
        self.is_writable = True
        self.reloads = 0

    def known(self):
        return self.noted[-1] if self.noted else None

    def reload(self):
        self.reloads += 1
        return self.known()

    def note(self, moment):
        if self.is_writable:
            self.noted.append(moment)
        return self.is_writable


@pytest.fixture
def lease():
    return Lease(1.0)


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def facts(lease, store):
    return NearFacts(store, NearCache(max_entries=10, max_bytes=1 << 20), lease, Clock())


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def follower(facts, lease, memory):
    return Follower(facts, lease, memory)


def renew(follower, moment, *, group=1, held=1, sent_at=100.0):
    follower.renewed(Renewal(sent_at=sent_at, moment=moment, group=group, held=held))


async def remembered(facts):
    _, [leaf] = await facts.read([NAME])
    return leaf


async def test_a_feed_a_renewal_and_the_worker_serves(follower, facts, memory):
    follower.connected(at(5), 1)
    assert not facts.is_leased()
    renew(follower, at(5))
    assert facts.is_leased()
    assert follower.acknowledged == 5
    assert memory.noted == [at(5)]
    assert follower.note == at(5)


async def test_what_was_told_is_acknowledged_only_after_it_was_applied(follower, facts):
    follower.connected(at(5), 1)
    leaf = await remembered(facts)
    renew(follower, at(6))
    assert (follower.acknowledged, facts.is_leased()) == (0, False)
    follower.changed([NAME])
    assert not leaf.is_current
    follower.applied(step(6))
    assert (follower.acknowledged, facts.is_leased()) == (6, True)


async def test_one_server_holds_what_it_tells_so_a_push_is_enough_to_acknowledge(follower, memory):
    follower.connected(at(5), 1)
    follower.applied(step(6))
    assert follower.acknowledged == 6
    assert memory.noted == [at(6)]


@pytest.mark.parametrize(("group", "enough"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)])
async def test_a_lease_needs_most_of_the_group(follower, facts, group, enough):
    follower.connected(at(5), group)
    renew(follower, at(5), group=group, held=enough - 1)
    assert not facts.is_leased()
    renew(follower, at(5), group=group, held=enough)
    assert facts.is_leased()


async def test_only_what_all_servers_hold_is_noted_and_acknowledged(follower, facts, memory):
    follower.connected(at(5), 3)
    follower.applied(step(6))
    renew(follower, at(6), group=3, held=2)
    assert facts.is_leased()
    assert (follower.acknowledged, memory.noted, follower.is_behind) == (0, [], True)
    renew(follower, at(6), group=3, held=3)
    assert (follower.acknowledged, memory.noted, follower.is_behind) == (6, [at(6)], False)


async def test_what_all_hold_and_was_not_heard_yet_is_not_noted(follower, memory):
    follower.connected(at(5), 3)
    renew(follower, at(7), group=3, held=3)
    assert (follower.acknowledged, memory.noted) == (0, [])
    follower.applied(step(6))
    assert (follower.acknowledged, memory.noted) == (0, [])
    follower.applied(step(7))
    assert (follower.acknowledged, memory.noted) == (7, [at(7)])


async def test_what_could_not_be_noted_is_not_acknowledged_and_is_tried_again(follower, facts, memory):
    follower.connected(at(5), 1)
    memory.is_writable = False
    renew(follower, at(5))
    assert (follower.acknowledged, facts.is_leased()) == (0, True)
    assert follower.is_behind
    memory.is_writable = True
    renew(follower, at(5), sent_at=100.1)
    assert follower.acknowledged == 5
    assert not follower.is_behind


async def test_a_group_that_grew_counts_from_the_next_renewal_on(follower, facts, memory):
    follower.connected(at(5), 1)
    renew(follower, at(5), group=3, held=1)
    assert not facts.is_leased()
    follower.applied(step(6))
    assert (follower.acknowledged, memory.noted) == (0, [])


async def test_a_lost_feed_leaves_what_is_remembered_to_the_lease(follower, facts):
    follower.connected(at(5), 1)
    renew(follower, at(5))
    leaf = await remembered(facts)
    follower.disconnected()
    assert leaf.is_current
    assert facts.is_leased()


async def test_a_new_feed_begins_with_an_empty_memory_and_acknowledges_nothing(follower, facts):
    follower.connected(at(5), 1)
    renew(follower, at(5))
    leaf = await remembered(facts)
    follower.connected(at(5), 1)
    assert not leaf.is_current
    assert follower.acknowledged == 0


async def test_facts_that_are_not_the_known_ones_end_everything_at_once(follower, facts, memory):
    follower.connected(at(5), 1)
    renew(follower, at(5))
    leaf = await remembered(facts)
    follower.refused()
    assert not follower.is_history_known
    assert not leaf.is_current
    assert not facts.is_leased()
    assert not facts.is_fresh(3600.0)  # no degraded period covers facts of a wrong history
    assert follower.acknowledged == 0
    assert memory.noted == [at(5)]
    assert memory.reloads == 1
    with pytest.raises(Unavailable):
        await facts.read([NAME])
    follower.disconnected()
    assert not follower.is_history_known


async def test_once_they_are_accepted_the_worker_begins_anew_by_itself(follower, facts, memory, store):
    follower.connected(at(500), 1)
    renew(follower, at(500))
    follower.refused()
    memory.noted.append(at(7, OTHER))
    store.moment = at(8, OTHER)
    follower.connected(at(8, OTHER), 1)
    renew(follower, at(8, OTHER), sent_at=100.2)
    assert follower.is_history_known
    assert facts.is_leased()
    # Generations of the old history do not count: acknowledging its 500 would confirm future changes.
    assert follower.acknowledged == 8
    assert (await remembered(facts)).is_current
