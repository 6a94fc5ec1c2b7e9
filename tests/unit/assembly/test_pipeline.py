"""What the pipeline of a worker writes by itself."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from gateway.adapters.redis_store import RedisStore
from gateway.assembly.pipeline import Pipeline
from gateway.model.stores import GroupSize
from gateway.operations.session import fact_server


@pytest.fixture
def pipeline(copy_of_demo):
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    settings = copy_of_demo(folder).settings
    with fact_server(settings) as url:
        made = Pipeline(settings, url)
        made.other = RedisStore(url)
        yield made
    shutil.rmtree(folder)


def records(pipeline):
    folder = pipeline.settings.audit_folder
    return b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file()).splitlines()


def in_pipeline(pipeline, operation):
    async def run():
        try:
            return await operation()
        finally:
            await pipeline.store.close()

    return asyncio.run(run())


async def write_group(store, group):
    async def plan(_snapshot, batch):
        batch.group = group

    await store.transact(plan)


@pytest.mark.parametrize("before", [GroupSize(servers=1), GroupSize(servers=2)])
def test_a_group_that_grew_is_recorded_and_then_noted(pipeline, before):
    async def scenario():
        await write_group(pipeline.store, before)
        earlier = await pipeline.store.moment()
        await pipeline._note_group(3)
        return earlier, await pipeline.store.moment(), await pipeline.store.group()

    earlier, moment, group = in_pipeline(pipeline, scenario)
    assert group == GroupSize(servers=3, is_set=False)
    assert moment.generation == earlier.generation + 1
    by_worker = f'"worker:{pipeline.name}"'.encode()
    attempt, *_ = [one for one in records(pipeline) if by_worker in one and b'"directory.group"' in one]
    assert b'"3 servers"' in attempt


@pytest.mark.parametrize(
    "present", [GroupSize(servers=3), GroupSize(servers=5), GroupSize(servers=2, is_set=True)]
)
def test_what_an_operator_set_or_another_worker_noted_meanwhile_stays(pipeline, present):
    async def scenario():
        await write_group(pipeline.store, present)
        earlier = await pipeline.store.moment()
        await pipeline._note_group(3)
        assert await pipeline.store.moment() == earlier
        return await pipeline.store.group()

    assert in_pipeline(pipeline, scenario) == present


def test_one_that_is_set_while_a_worker_notes_its_own_is_not_overwritten(pipeline, monkeypatch):
    asked = []

    async def scenario():
        read = pipeline.store.group

        async def group():
            found = await read()
            if not asked:  # between its look and its commit, an operator sets it
                asked.append(found)
                await write_group(pipeline.other, GroupSize(servers=5, is_set=True))
                await pipeline.other.close()
            return found

        monkeypatch.setattr(pipeline.store, "group", group)
        await pipeline._note_group(3)
        return await read()

    assert in_pipeline(pipeline, scenario) == GroupSize(servers=5, is_set=True)
    assert asked == [GroupSize(servers=1)]
