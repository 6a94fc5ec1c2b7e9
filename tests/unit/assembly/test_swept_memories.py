"""Every memory of a real worker is swept, and the background task that does it is started."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import shutil
import tempfile
from pathlib import Path

import pytest

from gateway.assembly import upkeep as upkeep_module
from gateway.assembly.app import Worker
from gateway.demo.world import build_world, demo_settings
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.stamps import Leaf
from gateway.operations.session import fact_server

UNSWEPT = 6
"""Parsed networks, parsed key sets, open files, measurements, policy sets, digests of links: their entries
depend on no fact, so they never stop being current.
"""


@pytest.fixture
def worker():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    settings = dataclasses.replace(
        demo_settings(folder),
        public_url="https://models.example",
        upstream="https://api.example",
        shared_links="attested",
        authority="platform",
    )
    asyncio.run(build_world(settings))
    with fact_server(settings) as url:
        yield Worker(settings, url)
    shutil.rmtree(folder)


def test_every_memory_that_a_worker_has_is_swept(worker):
    gc.collect()
    former = {id(one) for one in gc.get_objects() if isinstance(one, BoundedMemory)}
    worker = Worker(worker.pipeline.settings, "redis://127.0.0.1:1")
    app, at_once = worker.app(), worker.at_once()
    made = [one for one in gc.get_objects() if isinstance(one, BoundedMemory) and id(one) not in former]
    swept = worker.pipeline.upkeep.memories
    assert len({id(one) for one in swept}) == len(swept)
    left_out = [one for one in made if not any(one is other for other in swept)]
    assert len(left_out) == UNSWEPT
    assert app is not None
    assert at_once is not None


def test_what_is_no_longer_current_goes_though_nobody_asks_for_it(worker, monkeypatch):
    monkeypatch.setattr(upkeep_module, "SWEEP_SECONDS", 0.01)

    async def scenario():
        moved = Leaf(b"rule", b"v")
        memory = BoundedMemory(max_bytes=1 << 20, weigh=lambda *_: 0, stands_on=lambda value: value)
        memory.put("a", (moved,))
        worker.pipeline.sweep(memory)
        async with worker.pipeline.running():
            assert len(memory) == 1
            moved.is_current = False
            async with asyncio.timeout(30):
                while len(memory):  # noqa: ASYNC110 -- a memory has no event
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
