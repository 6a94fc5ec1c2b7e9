"""What a worker does beside requests, and what it leaves undone because nothing moved."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from types import SimpleNamespace

import pytest

from gateway.model.errors import Unavailable
from gateway.upkeep import Upkeep


class World:
    """The facts' generation, who reads the known models, and what the catalogue is told."""

    def __init__(self):
        self.lease = SimpleNamespace(applied=1)
        self.known = frozenset({"acme/a"})
        self.reads = 0
        self.scans = []
        self.failures = []
        self.is_gone = False

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
        rooms = {one.name: self for one in fields(Upkeep) if one.init}
        return Upkeep(**rooms)


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
