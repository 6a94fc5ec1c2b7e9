"""The chore that has the audit folder kept within bounds: a real process, and one worker at a time."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.assembly.audit_keeping import AuditKeeping, keeping_order
from gateway.assembly.components import build_recorder
from gateway.audit import verify
from gateway.audit.keeping.keeper import Bounds
from gateway.configuration.sources import load_settings
from gateway.model.errors import Reason
from gateway.model.file_lock import FileLock
from gateway.model.verdicts import Rejection
from gateway.operations.audit_keeping import LOCK_NAME, keep
from tests import samples

REFUSED = Rejection(
    request=samples.wire_request(client="192.0.2.1", route="/v1/models"),
    reason=Reason.NOT_PERMITTED,
    principal=samples.principal(),
)


@pytest.fixture
def settings(installation):
    """Of an installation with a closed chain that is long enough to be packed."""
    made = dataclasses.replace(load_settings(installation.variables()), audit_keep_gigabytes=1)
    log = build_recorder(made, SystemClock())
    for _ in range(30):
        log.reject(REFUSED)
    log.close()
    return made


def round_of(settings):
    kept, failures = [], []

    async def run():
        done = asyncio.Event()

        def note(found, into):
            into.append(found)
            done.set()

        keeping = AuditKeeping(
            settings,
            lambda found: note(found, kept),
            lambda failure: note(failure, failures),
            first_seconds=0.0,
        )
        await keeping.prepare()
        task = asyncio.create_task(keeping.run())
        await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await keeping.close()

    asyncio.run(run())
    return kept, failures


def test_a_process_of_its_own_makes_the_round_and_tells(settings):
    [kept], failures = round_of(settings)
    assert failures == []
    assert kept.bytes > 10_000
    assert kept.oldest is not None
    assert kept.removed == 0
    assert verify(settings.audit_folder).is_intact


def test_what_is_due_is_packed(settings):
    order = replace(keeping_order(settings), bounds=Bounds(pack_seconds=0.0))
    assert keep(order, SystemClock()).packed >= 1
    assert verify(settings.audit_folder).is_intact


def test_a_failure_is_told_and_ends_nothing(settings):
    broken = dataclasses.replace(
        settings, state=settings.state / "elsewhere", audit_dir=settings.audit_folder
    )
    kept, [failure] = round_of(broken)
    assert kept == []
    assert failure.dependency == "audit"


def test_one_worker_does_it_for_all(settings):
    async def run():
        made = [AuditKeeping(settings, lambda _kept: None, lambda _failure: None) for _ in range(2)]
        for one in made:
            await one.prepare()
        leads = [one.leads() for one in made]
        assert leads == [True, False]
        await made[0].close()
        assert made[1].leads()
        await made[1].close()

    asyncio.run(run())


def test_another_round_at_the_same_time_is_left_alone(settings):
    with FileLock(settings.audit_folder / LOCK_NAME) as lock:
        assert lock.is_taken_alone()
        assert keep(keeping_order(settings), SystemClock()) is None


def test_the_command_says_what_it_did(installation, settings):
    found = installation.json("audit", "keep")
    assert found["removed"] == 0
    assert found["bytes"] > 10_000
    assert "segments packed" in installation.run("audit", "keep").stderr
    told = json.loads(installation.run("doctor", "--json", status=None).stdout)
    [row] = [one for one in told["checks"] if one["name"] == "audit log"]
    assert "nothing is removed" in row["found"]
