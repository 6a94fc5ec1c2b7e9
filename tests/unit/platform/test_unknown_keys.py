"""What a worker remembers about unknown keys, and what ends it."""

from __future__ import annotations

import pytest

from gateway.directory.records import names
from gateway.directory.records.codec import encode
from gateway.model.errors import Reason, Refusal
from gateway.model.names import KeyId, ModelId
from gateway.model.rulings import EndMark
from gateway.model.stamps import Leaf
from gateway.platform.budget import Budget
from gateway.platform.unknown_keys import LEAST_SECONDS, UnknownKeys

pytestmark = pytest.mark.anyio

KEY, OTHER = KeyId("key_0123456789ab"), KeyId("key_ba9876543210")
CARS, TRUCKS = ModelId("acme/cars/1"), ModelId("acme/trucks/2")
NOBODYS, REFUSED = Reason.UPSTREAM_UNAUTHORIZED, Reason.UPSTREAM_REFUSED


class World:
    """A worker's memory of endings, and a clock."""

    def __init__(self, max_bytes=1 << 20):
        self.time = 50.0
        self.generation = 7
        self.leaves = {}
        self.unknown_keys = UnknownKeys(
            source=self, budget=Budget(per_second=50, now=self.monotonic), clock=self, max_bytes=max_bytes
        )

    def monotonic(self):
        return self.time

    async def read(self, wanted):
        return self.generation, [self.leaves.setdefault(name, Leaf(name, None)) for name in wanted]

    def end(self, name):
        """A webhook's ending, as this worker receives it."""
        self.generation += 1
        self.leaves[name] = Leaf(name, encode(EndMark(generation=self.generation)))

    async def deny(self, reason=REFUSED, *, key=KEY, model=CARS, seconds=10.0):
        start = await self.unknown_keys.take_start(self.generation)
        self.unknown_keys.put(key, model, reason, start, seconds)


@pytest.fixture
def world():
    return World()


async def test_a_denial_is_remembered_for_its_key_and_model_and_for_its_time(world):
    await world.deny()
    assert await world.unknown_keys.find(KEY, CARS) is REFUSED
    assert await world.unknown_keys.find(KEY, TRUCKS) is None
    assert await world.unknown_keys.find(OTHER, CARS) is None
    world.time += 9.99
    assert await world.unknown_keys.find(KEY, CARS) is REFUSED
    world.time += 0.01
    assert await world.unknown_keys.find(KEY, CARS) is None
    assert len(world.unknown_keys.memory) == world.unknown_keys.memory.held_bytes == 0


async def test_a_key_that_is_nobodys_is_so_for_every_model(world):
    await world.deny(NOBODYS, model=None)
    assert await world.unknown_keys.find(KEY, CARS) is await world.unknown_keys.find(KEY, TRUCKS) is NOBODYS


async def test_a_paused_key_is_asked_about_for_each_model(world):
    await world.deny(Reason.USAGE_PAUSED, model=None)
    assert await world.unknown_keys.find(KEY, CARS) is None
    assert await world.unknown_keys.find_standing(KEY) is Reason.USAGE_PAUSED


async def test_time_counts_from_the_question_and_leaves_a_moment(world):
    start = await world.unknown_keys.take_start(7)
    world.time += 30.0
    world.unknown_keys.put(KEY, CARS, REFUSED, start, 10.0)
    world.time += LEAST_SECONDS / 2
    assert await world.unknown_keys.find(KEY, CARS) is REFUSED
    world.time += LEAST_SECONDS / 2
    assert await world.unknown_keys.find(KEY, CARS) is None


@pytest.mark.parametrize(
    "ending",
    [names.ending_fact(None), names.ending_fact(KEY, is_key=True), names.ending_fact(CARS)],
)
async def test_a_webhook_ends_it(world, ending):
    await world.deny()
    world.end(ending)
    assert await world.unknown_keys.find(KEY, CARS) is None
    await world.deny()  # asked after it
    assert await world.unknown_keys.find(KEY, CARS) is REFUSED


@pytest.mark.parametrize("ending", [names.ending_fact(OTHER, is_key=True), names.ending_fact(TRUCKS)])
async def test_a_webhook_about_something_else_does_not(world, ending):
    await world.deny()
    world.end(ending)
    assert await world.unknown_keys.find(KEY, CARS) is REFUSED


async def test_a_webhook_that_came_while_it_was_asked_ends_it(world):
    start = await world.unknown_keys.take_start(world.generation)
    world.end(names.ending_fact(KEY, is_key=True))
    world.unknown_keys.put(KEY, CARS, REFUSED, start, 10.0)
    assert await world.unknown_keys.find(KEY, CARS) is None


async def test_an_ending_that_does_not_parse_may_be_about_it(world):
    await world.deny()
    name = names.ending_fact(CARS)
    world.leaves[name] = Leaf(name, b"\xff")
    assert await world.unknown_keys.find(KEY, CARS) is None


async def test_nothing_outlives_what_was_remembered_at_the_question(world):
    # A feed that was lost, or facts that were restored: everything in memory is read anew.
    await world.deny()
    for leaf in world.leaves.values():
        leaf.is_current = False
    world.leaves.clear()
    assert await world.unknown_keys.find(KEY, CARS) is None


async def test_what_is_read_anew_while_a_denial_is_looked_up_ends_it(world):
    await world.deny()
    [last_ending] = world.leaves.values()
    read = world.read

    async def lose_the_feed(wanted):
        last_ending.is_current = False
        return await read(wanted)

    world.read = lose_the_feed
    assert await world.unknown_keys.find(KEY, CARS) is None


async def test_what_is_remembered_is_bounded_and_the_least_recently_used_goes_first():
    world = World(max_bytes=10_000)
    keys = [KeyId(f"key_{number:012}") for number in range(100)]
    for key in keys:
        await world.deny(key=key)
        assert world.unknown_keys.memory.held_bytes <= 10_000
    assert await world.unknown_keys.find(keys[-1], CARS) is REFUSED
    assert await world.unknown_keys.find(keys[0], CARS) is None
    assert 5 < len(world.unknown_keys.memory) < 15


async def test_what_has_ended_is_let_go_by_the_regular_sweep(world):
    for number in range(50):
        await world.deny(key=KeyId(f"key_{number:012}"))
    world.time += 10.0
    await world.deny(key=OTHER)
    list(world.unknown_keys.memory.sweep())
    assert len(world.unknown_keys.memory) == 1


async def test_the_same_put_twice_is_charged_once(world):
    await world.deny()
    charged = world.unknown_keys.memory.held_bytes
    await world.deny()
    assert world.unknown_keys.memory.held_bytes == charged


def test_beyond_the_budget_nothing_is_said_about_the_key(world):
    for _ in range(20):
        world.unknown_keys.admit("192.0.2.1")
    with pytest.raises(Refusal) as caught:
        world.unknown_keys.admit("192.0.2.1")
    assert (caught.value.reason, caught.value.key_id) == (Reason.UNKNOWN_KEY_LIMIT, None)
    world.time += 0.2
    world.unknown_keys.admit("192.0.2.1")
    assert world.unknown_keys.counts == {"asked": 21, "limited": 1}


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("unix", "", True),
    ],
)
def test_a_source_is_an_address_or_the_network_of_a_host(world, one, other, is_same):
    for _ in range(20):
        world.unknown_keys.admit(one)
    if is_same:
        with pytest.raises(Refusal):
            world.unknown_keys.admit(other)
    else:
        world.unknown_keys.admit(other)
