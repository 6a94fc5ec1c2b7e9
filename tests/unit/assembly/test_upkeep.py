"""What a worker runs beside requests, and what it skips because nothing has changed."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from types import SimpleNamespace

import pytest

from gateway.assembly.upkeep import Upkeep
from gateway.audit.record import WorkerRecord
from gateway.identity.last_uses import LastUses
from gateway.model.bounded_memory import STEP, BoundedMemory
from gateway.model.errors import Unavailable
from gateway.model.names import KeyId
from gateway.model.stamps import Leaf


class World:
    """The facts' generation, the reader of known models, and what the catalogue is given."""

    def __init__(self):
        self.lease = SimpleNamespace(applied=1)
        self.known = frozenset({"acme/a"})
        self.reads = 0
        self.scans = []
        self.failures = []
        self.is_gone = False
        self.problem = None
        self.told = []
        self.lines = SimpleNamespace(tick=lambda _now: None, end=lambda: None)

    def chore_failed(self, chore, failure, pause):
        self.told.append((chore, type(failure).__name__))

    def defect(self, route, defect):
        self.told.append((route, type(defect).__name__))

    def cache_changed(self, problem):
        self.told.append(problem)

    def state(self):
        return SimpleNamespace(survey=SimpleNamespace(problem=self.problem))

    async def known_models(self):
        self.reads += 1
        if self.is_gone:
            raise Unavailable("redis", "gone")
        return self.known

    async def refresh(self, known):
        self.scans.append(known)

    def failed(self, failure):
        self.failures.append(failure)

    def upkeep(self):
        pipeline = {one.name: self for one in fields(Upkeep) if one.init}
        return Upkeep(**pipeline)


@pytest.fixture
def world():
    return World()


def scan(upkeep, times=1):
    async def scenario():
        for _ in range(times):
            await upkeep._look_at_disk()

    asyncio.run(scenario())


def test_rules_and_grants_are_not_read_again_while_no_fact_moved(world):
    scan(world.upkeep(), times=5)
    assert world.reads == 1
    assert world.scans == [world.known] * 5


def test_they_are_read_again_once_a_fact_moved(world):
    upkeep = world.upkeep()
    scan(upkeep)
    world.known = frozenset({"acme/a", "acme/b"})
    world.lease.applied = 2
    scan(upkeep)
    assert world.scans[-1] == {"acme/a", "acme/b"}


def test_a_reading_that_failed_is_tried_again(world):
    upkeep = world.upkeep()
    world.is_gone = True
    scan(upkeep)
    assert (len(world.failures), world.scans) == (1, [])
    world.is_gone = False
    scan(upkeep)
    assert world.scans == [world.known]


def test_what_is_no_longer_current_is_swept_out_of_every_memory_in_turns(world):
    moved, upkeep = Leaf(b"rule", b"v"), world.upkeep()
    memories = tuple(
        BoundedMemory(max_bytes=1 << 30, weigh=lambda *_: 0, stands_on=lambda value: value) for _ in range(2)
    )
    for memory in memories:
        for number in range(2 * STEP):
            memory.put(number, (moved,) if number % 2 else (Leaf(b"other", b"v"),))
    upkeep.memories = memories
    turns = []

    async def scenario():
        sweeping = asyncio.create_task(upkeep.sweep_memories())
        while not sweeping.done():
            turns.append(1)
            await asyncio.sleep(0)
        await sweeping

    moved.is_current = False
    asyncio.run(scenario())
    assert [len(memory) for memory in memories] == [STEP, STEP]
    assert len(turns) > 2 * len(memories)


def test_that_the_cache_cannot_be_read_is_told_once_and_once_more_when_it_can(world):
    upkeep = world.upkeep()
    scan(upkeep, times=2)
    world.problem = "it does not exist"
    scan(upkeep, times=3)
    world.problem = None
    scan(upkeep, times=2)
    assert world.told == ["it does not exist", None]


class Ending(World):
    """Things that note that they were closed, of which one raises."""

    def __init__(self, raising, failure):
        super().__init__()
        self.raising, self.failure, self.release = raising, failure, []

    def part(self, name, *, is_awaited=True):
        def close():
            self.release.append(name)
            if name == self.raising:
                raise self.failure

        async def close_awaited():
            close()

        return SimpleNamespace(close=close_awaited if is_awaited else close)


PARTS = ("pins", "authority", "ahead", "catalogue", "recorder", "store")


@pytest.mark.parametrize("failure", [Unavailable("state", "gone"), ValueError("nobody expected it")])
@pytest.mark.parametrize("raising", PARTS)
def test_at_the_end_each_part_is_let_go_of_whatever_becomes_of_the_others(raising, failure):
    world = Ending(raising, failure)
    upkeep = world.upkeep()
    upkeep.pins, upkeep.store = world.part("pins"), world.part("store")
    upkeep.at_the_end = (world.part("authority").close,)
    upkeep.pinning_ahead = world.part("ahead", is_awaited=False)
    upkeep.catalogue = world.part("catalogue", is_awaited=False)
    upkeep.recorder = world.part("recorder", is_awaited=False)
    noted = []
    upkeep.recorder.note = lambda kind, **fields: noted.append((kind, fields["state"]))

    upkeep.last_uses = LastUses()

    async def leave(_worker):
        return

    upkeep.store.leave = leave
    asyncio.run(upkeep._end())
    assert world.release == list(PARTS)
    assert len(world.failures) + len(world.told) == 1
    assert noted == [(WorkerRecord, "stopped")]


class Marks:
    """Last uses with one new mark, and a store that may be gone."""

    def __init__(self, *, is_gone):
        self.is_gone = is_gone
        self.written = {}
        self.back = {}

    def take(self):
        return {}

    def take_marks(self):
        return {KeyId("key_abcdefghijkl"): b"m" * 32}

    def give_back_marks(self, marks):
        self.back = marks

    async def put_hash(self, name, values):
        if self.is_gone:
            raise Unavailable("redis", "gone")
        self.written |= values


@pytest.mark.parametrize("is_gone", [False, True])
def test_marks_of_new_keys_are_written_or_kept_for_later(world, is_gone):
    marks = Marks(is_gone=is_gone)
    upkeep = world.upkeep()
    upkeep.store = upkeep.last_uses = marks
    asyncio.run(upkeep._note_last_uses())
    assert (bool(marks.written), bool(marks.back), bool(world.failures)) == (not is_gone, is_gone, is_gone)
