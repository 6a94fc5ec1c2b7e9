"""What `serve` says of the servers that hold the facts before it serves."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.cli import serve
from gateway.demo.world import build_world, demo_settings
from gateway.model.stores import GroupSize
from gateway.operations.session import open_session


@pytest.fixture
def settings():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    with EmbeddedValkey(folder / "server").running() as url:
        settings = dataclasses.replace(demo_settings(folder), redis_url=url)
        asyncio.run(build_world(settings))
        yield settings
    shutil.rmtree(folder)


def set_group(settings, servers):
    async def work():
        async with open_session(settings) as session:
            await session.set_group(GroupSize(servers=servers, is_set=True))

    asyncio.run(work())


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(serve, "say", lambda text, **_style: lines.append(text))
    return lines


def test_a_group_that_is_whole_is_not_spoken_of(settings, said):
    asyncio.run(serve._prepare(settings))
    assert said == []


def test_the_start_says_when_revocations_cannot_be_sure_and_what_would_have_to_happen(settings, said):
    set_group(settings, 3)
    asyncio.run(serve._prepare(settings))
    [line] = said
    assert "held by 1 of 3" in line
    assert "cachegate directory group" in line


def test_with_an_embedded_server_nothing_is_looked_at(settings, said):
    set_group(settings, 3)

    async def work():
        async with open_session(settings) as session:
            embedded = dataclasses.replace(settings, redis_url=None)
            await serve._say_group(dataclasses.replace(session, settings=embedded))

    asyncio.run(work())
    assert said == []
