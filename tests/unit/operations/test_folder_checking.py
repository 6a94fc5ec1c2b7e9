"""Folders of clients are checked in a process of its own, which ends with whoever waits for it."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from gateway.configuration.settings import CHECKOUT_POLICIES
from gateway.decision.policyset import load_policy_folder
from gateway.model.errors import Misconfigured
from gateway.operations import folder_checking
from gateway.operations.folder_checking import check_apart
from gateway.operations.policy_folder import load_folder

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "policies"
    shutil.copytree(CHECKOUT_POLICIES, made)
    shutil.rmtree(made / "tests")  # its cases take a second, and are not what this is about
    (made / "tenants").mkdir(exist_ok=True)
    (made / "tenants" / "acme.toml").write_text('[tenant]\nid = "acme"\n')
    return made


@pytest.fixture
def processes(monkeypatch):
    """The processes that were started."""
    started, create = Processes(), asyncio.create_subprocess_exec

    async def noting(*command, **options):
        started.append(await create(*command, **options))
        started.is_begun.set()
        return started[-1]

    monkeypatch.setattr(folder_checking.asyncio, "create_subprocess_exec", noting)
    return started


class Processes(list):
    def __init__(self):
        super().__init__()
        self.is_begun = asyncio.Event()


async def test_it_reads_the_same_folder_as_a_command_and_compares_its_rules(folder):
    found, compared = await check_apart(folder, None, private_issuers=False)
    assert found == load_folder(folder)
    assert (compared.old, len(compared.changes.new) > 5) == (None, True)
    in_force = load_policy_folder(folder)
    _, same = await check_apart(folder, in_force, private_issuers=False)
    assert (same.old, same.changes) == (in_force.digest, None)


async def test_its_problems_are_told(folder):
    (folder / "tenants" / "acme.toml").write_text("[tenant")
    with pytest.raises(Misconfigured, match=r"acme\.toml"):
        await check_apart(folder, None, private_issuers=False)


async def test_what_takes_too_long_is_ended_and_refused(folder, processes):
    with pytest.raises(Misconfigured, match="takes longer"):
        await check_apart(folder, None, private_issuers=False, seconds=0.0)
    assert [one.returncode for one in processes] == [-9]


async def test_it_ends_with_whoever_waits_for_it(folder, processes):
    checking = asyncio.ensure_future(check_apart(folder, None, private_issuers=False))
    await processes.is_begun.wait()
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    assert [one.returncode for one in processes] == [-9]
