"""The guard of a process with an app of its own: when it starts, who shares it, and where it does not run."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from gateway.configuration.sources import load_settings
from gateway.inprocess.app import Cachegate
from gateway.model.errors import Misconfigured

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def settings(installation):
    return load_settings(installation.variables())


def test_it_is_made_where_no_settings_are(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Cachegate().now_running is None
    assert Cachegate().readiness() == {"running": False}


async def test_it_runs_within_its_context_and_a_second_one_joins(settings):
    cachegate = Cachegate(settings)
    async with cachegate.running():
        running = cachegate.now_running
        assert running is not None
        async with cachegate.running():
            assert cachegate.now_running is running
        assert cachegate.now_running is running
        assert cachegate.readiness()["running"]
        assert cachegate.readiness()["lease"]
    assert cachegate.now_running is None
    async with cachegate.running():  # and it can be started again
        assert cachegate.now_running not in (None, running)


async def test_a_forked_child_has_no_guard(settings):
    cachegate = Cachegate(settings)
    async with cachegate.running():
        child = os.fork()
        if child == 0:
            os._exit(0 if cachegate.now_running is None else 1)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0


async def test_without_a_state_folder_it_does_not_start(settings, tmp_path):
    cachegate = Cachegate(replace(settings, state=tmp_path / "nowhere"))
    with pytest.raises(Misconfigured):
        async with cachegate.running():
            pass
    assert cachegate.now_running is None
