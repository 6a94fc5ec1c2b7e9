"""The session: history before a change, and the barrier after it, on a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import tempfile
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.history_file import HistoryFile
from gateway.adapters.redis_fleet import WORKERS
from gateway.adapters.redis_marks import GENERATION, block_of, offset_of
from gateway.audit import read_events
from gateway.audit.record import ChangeRecord
from gateway.barrier import MARGIN_SECONDS
from gateway.configuration.settings import CHECKOUT_POLICIES, Settings
from gateway.directory.edits import keys as key_operations
from gateway.directory.edits import models as model_operations
from gateway.directory.edits import tenants as tenant_operations
from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.facts import MAX_DEGRADED_SECONDS
from gateway.model.names import KeyId, Pattern, TenantId
from gateway.model.stores import GroupSize, Moment
from gateway.operations.history import accept_history
from gateway.operations.session import (
    MAX_SUBJECT_BYTES,
    bounded_subject,
    fact_server,
    open_session,
)
from gateway.operations.setup import set_up

pytestmark = pytest.mark.anyio

NUMBERS = count()
ACME, GLOBEX = TenantId("acme"), TenantId("globex")


@pytest.fixture
async def settings():
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))  # short: a unix socket's path has to fit
    (folder / "cache").mkdir()
    made = Settings(
        state=folder / "state",
        cache_root=folder / "cache",
        policies=CHECKOUT_POLICIES,
        node="test",
        lease_milliseconds=200,
    )
    await set_up(made)
    yield made
    shutil.rmtree(folder)


@pytest.fixture
async def session(settings):
    async with open_session(settings) as session:
        yield session


def creating(tenant):
    return lambda changes: tenant_operations.create_tenant(changes, tenant_id=tenant, name=tenant, now=1.0)


def degrading(tenant, seconds):
    return lambda changes: tenant_operations.set_degraded(changes, tenant_id=tenant, seconds=seconds)


async def register(session, worker, applied):
    """A worker that renewed just now and then no more: stopped, or cut off."""
    await session.store.put_hash(WORKERS, {worker.encode(): b"%d:%d" % (applied, next(NUMBERS))})


def changes_of(settings):
    lines = [
        line for path in settings.audit_folder.glob("*.jsonl") for line in path.read_bytes().splitlines()
    ]
    return [one for one in map(json.loads, lines) if one.get("kind") == "change"]


async def test_a_change_is_waited_for_and_says_so(session):
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME)
    assert done.barrier.is_sure
    assert (done.barrier.generation, done.barrier.workers) == (done.generation, 0)


async def test_a_change_that_nobody_waits_for_says_nothing(session):
    await register(session, "stopped", 0)
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME, wait=False)
    assert done.barrier is None


async def test_a_worker_that_does_not_acknowledge_is_waited_out(session):
    await register(session, "stopped", 0)
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME)
    assert (done.barrier.is_sure, done.barrier.workers, done.barrier.acknowledged) == (True, 1, 0)
    assert done.barrier.milliseconds > 150


async def test_a_tenant_that_is_served_on_what_was_last_known_makes_its_own_changes_unsure(session):
    for tenant in (ACME, GLOBEX):
        await session.perform("tenants.create", creating(tenant), tenant=tenant)
    await session.perform("tenants.degraded", degrading(ACME, 600.0), tenant=ACME)

    async def report(action, operation, **about):
        await register(session, "stopped", 0)
        return (await session.perform(action, operation, **about)).barrier

    suspend = lambda one: lambda changes: tenant_operations.suspend_tenant(changes, tenant_id=one)  # noqa: E731
    publish = lambda changes: model_operations.publish(changes, patterns=[Pattern("globex/*")])  # noqa: E731
    assert (await report("tenants.suspend", suspend(GLOBEX), tenant=GLOBEX)).is_sure
    mine = await report("tenants.suspend", suspend(ACME), tenant=ACME)
    assert not mine.is_sure
    assert 300 < mine.sure_in_seconds < 601
    # Rules about models concern every tenant that may read them, whoever owns them.
    assert not (await report("models.publish", publish, tenant=GLOBEX)).is_sure


async def test_a_key_is_waited_for_as_its_tenant_is(session):
    for tenant in (ACME, GLOBEX):
        await session.perform("tenants.create", creating(tenant), tenant=tenant)
    await session.perform("tenants.degraded", degrading(ACME, 600.0), tenant=ACME)
    [admin] = await session.listing.list_keys(None)
    keys = {None: admin.key_id}
    for number, tenant in enumerate((ACME, GLOBEX)):
        key_id = KeyId(f"key_00000000000{number}")
        key = replace(admin, key_id=key_id, tenant=tenant)
        digest = bytes([number]) * 32
        operation = lambda changes, key=key, digest=digest: key_operations.create_key(  # noqa: E731
            changes, key=key, digest=digest
        )
        await session.perform("keys.create", operation, tenant=tenant, key_id=key_id)
        keys[tenant] = key_id
    for tenant, is_sure in ((ACME, False), (GLOBEX, True), (None, True)):
        await register(session, "stopped", 0)
        operation = lambda changes, tenant=tenant: key_operations.revoke_key(  # noqa: E731
            changes, key_id=keys[tenant], now=2.0
        )
        done = await session.perform("keys.revoke", operation, key_id=keys[tenant])
        assert done.barrier.is_sure is is_sure


async def test_a_degraded_time_that_is_shortened_is_sure_only_when_the_longer_one_is_over(session):
    await session.perform("tenants.create", creating(ACME), tenant=ACME)
    raised = await session.perform("tenants.degraded", degrading(ACME, 600.0), tenant=ACME)
    await register(session, "cut off", raised.generation)
    closed = await session.perform("tenants.degraded", degrading(ACME, 0.0), tenant=ACME)
    assert not closed.barrier.is_sure
    assert closed.barrier.sure_in_seconds > 590
    # And so is every later change, until that worker has applied it.
    suspending = lambda changes: tenant_operations.suspend_tenant(changes, tenant_id=ACME)  # noqa: E731
    suspended = await session.perform("tenants.suspend", suspending, tenant=ACME)
    assert not suspended.barrier.is_sure
    await register(session, "cut off", closed.generation)
    again = await session.perform("tenants.suspend", suspending, tenant=ACME)
    assert again.barrier.is_sure


async def test_a_server_that_is_gone_after_the_commit_makes_the_change_unsure_and_no_error(
    session, monkeypatch
):
    # What was made, such as a new key, has still to be shown.
    async def gone(_about, **_more):
        raise Unavailable("redis", "gone")

    monkeypatch.setattr(session.store, "look", gone)
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME)
    assert done.result.is_changed
    assert (done.barrier.is_sure, done.barrier.workers) == (False, 0)
    assert not done.barrier.held
    assert done.barrier.sure_in_seconds == pytest.approx(
        0.2 + MARGIN_SECONDS
    )  # no tenant has a degraded mode


async def test_how_long_a_tenant_that_is_degraded_may_go_on_is_known_though_the_server_is_gone(
    session, monkeypatch
):
    async def gone(_about, **_more):
        raise Unavailable("redis", "gone")

    await session.perform("tenants.create", creating(ACME), tenant=ACME)
    await session.perform("tenants.degraded", degrading(ACME, 600.0), tenant=ACME)
    monkeypatch.setattr(session.store, "look", gone)
    suspending = lambda changes: tenant_operations.suspend_tenant(changes, tenant_id=ACME)  # noqa: E731
    done = await session.perform("tenants.suspend", suspending, tenant=ACME)
    assert done.barrier.sure_in_seconds == pytest.approx(600.2 + MARGIN_SECONDS)
    shortening = await session.perform("tenants.degraded", degrading(ACME, 0.0), tenant=ACME)
    assert shortening.barrier.sure_in_seconds > MAX_DEGRADED_SECONDS


async def test_what_was_seen_is_kept_for_the_next_process(session, settings):
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME)
    assert HistoryFile(settings.history_file).load() == done.moment == await session.store.moment()


async def lose(session):
    """Reset the server to an older state, as a restored back-up: the same history, some changes ago."""
    client = session.store._client
    generation = await session.store.generation() - 1
    offset = offset_of(generation)
    mark = await client.execute_command("GETRANGE", block_of(generation), offset, offset + 15)
    await client.hset(GENERATION, mapping={"counter": generation, "mark": mark})


async def test_nothing_is_changed_on_facts_that_are_not_the_known_ones(session, settings):
    await session.perform("tenants.create", creating(ACME), tenant=ACME)
    await lose(session)
    generation, recorded = await session.store.generation(), len(changes_of(settings))
    with pytest.raises(Unavailable, match="directory accept"):
        await session.perform("tenants.create", creating(GLOBEX), tenant=GLOBEX)
    assert await session.store.generation() == generation
    assert len(changes_of(settings)) == recorded


async def test_an_operator_who_accepts_them_is_in_the_audit_log(session, settings):
    await session.perform("tenants.create", creating(ACME), tenant=ACME)
    await lose(session)
    present = await session.store.moment()
    await asyncio.to_thread(accept_history, settings, present)
    assert (await session.perform("tenants.create", creating(GLOBEX), tenant=GLOBEX)).result.is_changed
    accepted = [one for one in changes_of(settings) if one["action"] == "directory.accept"]
    assert len(accepted) == 1
    assert present.history in json.dumps(accepted)


async def test_an_acceptance_that_cannot_be_recorded_is_none(session, settings, tmp_path):
    await session.perform("tenants.create", creating(ACME), tenant=ACME)
    before = settings.history_file.read_bytes()
    (tmp_path / "audit").write_text("a file where the folder should be")
    with pytest.raises(Misconfigured):
        accept_history(
            dataclasses.replace(settings, audit_dir=tmp_path / "audit"),
            Moment(history="f" * 32, generation=1),
        )
    assert settings.history_file.read_bytes() == before


def test_what_a_record_names_is_bounded_and_stands_there_whole_by_its_digest():
    names = tuple(f"acme/{number}/" + "x" * 100 for number in range(2000))
    said = bounded_subject(names)
    assert sum(len(name) for name in said) <= MAX_SUBJECT_BYTES + 200
    assert said[:-1] == names[: len(said) - 1]
    digest = sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    assert said[-1] == f"{2000 - len(said) + 1} more; sha256 of all {digest}"
    assert bounded_subject(names[:3]) == names[:3]


async def test_a_change_that_names_very_much_leaves_a_log_that_can_be_read(session, settings):
    async def nothing(_changes):
        """Only its record matters."""

    names = tuple(f"acme/{number}/" + "x" * 1000 for number in range(2000))
    await session.perform("models.own", nothing, subject=names, wait=False)
    records = [event.record for event in read_events(settings.audit_folder)]
    said = [record.subject for record in records if isinstance(record, ChangeRecord)]
    assert said[-1] == bounded_subject(names)


async def test_a_server_that_is_named_by_a_file_of_others_is_not_used(settings, tmp_path):
    (tmp_path / "ca.pem").write_text("pem")
    (tmp_path / "ca.pem").chmod(0o666)
    used = dataclasses.replace(settings, redis_url=f"rediss://127.0.0.1:1?ssl_ca_certs={tmp_path / 'ca.pem'}")
    with pytest.raises(Misconfigured, match="chmod go-w"):
        fact_server(used)


async def test_no_server_is_started_in_a_folder_that_others_may_write(settings):
    settings.state.parent.chmod(0o777)
    with pytest.raises(Misconfigured, match="0777"):
        fact_server(settings)


async def test_the_size_of_the_group_is_learned_once_and_what_an_operator_sets_stays(settings):
    async with open_session(settings) as session:
        assert await session.store.group() == GroupSize(servers=1)
        await session.set_group(GroupSize(servers=3, is_set=True))
    async with open_session(settings) as session:
        assert await session.store.group() == GroupSize(servers=3, is_set=True)
    subjects = [one["subject"] for one in changes_of(settings) if one["action"] == "directory.group"]
    assert sorted(subjects) == [["1 servers"], ["3 servers"]]


async def test_what_not_all_servers_hold_is_neither_sure_nor_noted(session, settings):
    await session.set_group(GroupSize(servers=2, is_set=True))
    before = HistoryFile(settings.history_file).load()
    done = await session.perform("tenants.create", creating(ACME), tenant=ACME)
    assert (done.barrier.is_sure, done.barrier.held, done.barrier.servers) == (False, 1, 2)
    assert done.barrier.sure_in_seconds is None
    assert "held by 1 of 2" in done.barrier.why
    assert HistoryFile(settings.history_file).load() == before
