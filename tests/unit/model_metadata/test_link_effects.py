"""Hashing starts when links are handed out, and a failure of one file affects no other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model_metadata.link_effects import Minting

FILES = [("p1", f"f{number}") for number in range(5)]


class World:
    def __init__(self, trouble):
        self.trouble = trouble
        self.begun, self.failures, self.told = [], [], []

    async def open_file(self, _model, _package, handle):
        self.begun.append(handle)
        if handle == "f2":
            raise self.trouble

    def note(self):
        async def scenario():
            minting = Minting(
                catalogue=self,
                pins=None,
                clock=None,
                link_seconds=60.0,
                note_links=None,
                on_failure=self.failures.append,
                on_items_failed=lambda items, count: self.told.append((dict(items), count)),
            )
            await minting.note(SimpleNamespace(is_of_platform=False), "acme/cars/1", FILES)
            await asyncio.gather(*minting._tasks)

        asyncio.run(scenario())


@pytest.mark.parametrize(
    "trouble",
    [
        Refusal(Reason.UNSERVABLE),
        Unavailable("cache", "EIO"),
        RuntimeError("nobody expected it"),
        MemoryError(),
    ],
)
def test_one_that_cannot_be_begun_keeps_no_other_from_its_turn(trouble):
    world = World(trouble)
    world.note()
    assert world.begun == [handle for _, handle in FILES]
    assert len(world.failures) == isinstance(trouble, Unavailable)
    unexpected = not isinstance(trouble, Refusal | Unavailable)
    assert [list(items) for items, _ in world.told] == [["acme/cars/1 p1 f2"]] * unexpected
