"""Every command that changes a fact waits for the workers, and each can be told not to."""

from __future__ import annotations

import asyncio
import shutil
import uuid

import pytest

from gateway.adapters.embedded_valkey import EmbeddedValkey
from gateway.adapters.redis_fleet import WORKERS
from gateway.adapters.redis_store import RedisStore

BARRIER = {"workers", "acknowledged", "milliseconds", "sure", "sure_in_seconds"}


@pytest.fixture
def tenant(command):
    name = f"t-{uuid.uuid4().hex[:8]}"
    assert command("tenants", "create", name)[0] == 0
    return name


def changes(tenant):
    """One of each, in an order in which each finds something to change."""
    return [
        ("tenants", "degraded", tenant, "60s"),
        ("models", "own", tenant, f"{tenant}/*"),
        ("models", "publish", f"{tenant}/a"),
        ("models", "unpublish", f"{tenant}/a"),
        ("models", "group", "cars", f"{tenant}/a"),
        ("models", "ungroup", "cars", f"{tenant}/a"),
        ("models", "alias", f"{tenant}/latest", f"{tenant}/a"),
        ("models", "unalias", f"{tenant}/latest"),
        ("grants", "add", "--tenant", tenant, "--models", "other/*"),
        ("grants", "remove", "--tenant", tenant, "--models", "other/*"),
        ("keys", "create", "--tenant", tenant),
        ("keys", "import", "--tenant", tenant, "--sha256", uuid.uuid4().hex * 2),
        ("tenants", "suspend", tenant),
        ("tenants", "resume", tenant),
        ("models", "disown", tenant, f"{tenant}/*"),
        ("tenants", "create", f"{tenant}-2"),
    ]


@pytest.mark.parametrize("is_awaited", [True, False])
def test_every_change_reports_the_barrier_unless_it_was_told_not_to_wait(command_json, tenant, is_awaited):
    for arguments in changes(tenant):
        status, done = command_json(*arguments, *(() if is_awaited else ("--no-wait",)))
        assert (status, done["changed"]) == (0, True), arguments
        assert BARRIER & done.keys() == (BARRIER if is_awaited else set()), arguments
        assert done["generation"] > 0


@pytest.mark.parametrize("is_awaited", [True, False])
def test_keys_are_rotated_and_revoked_in_every_worker(command_json, tenant, is_awaited):
    more = () if is_awaited else ("--no-wait",)
    key_id = command_json("keys", "create", "--tenant", tenant)[1]["key_id"]
    rotated = command_json("keys", "rotate", key_id, *more)[1]
    revoked = command_json("keys", "revoke", rotated["key_id"], *more)[1]
    assert revoked["key_id"] == rotated["key_id"]
    for done in (rotated, revoked):
        assert BARRIER & done.keys() == (BARRIER if is_awaited else set())


@pytest.mark.parametrize("is_awaited", [True, False])
def test_a_policy_is_applied_in_every_worker(command_json, installed, tmp_path, is_awaited):
    folder = tmp_path / "policies"
    shutil.copytree(installed.settings.policies, folder)
    with (folder / "keys.cedar").open("a") as file:
        file.write(f"// {uuid.uuid4()}\n")
    more = () if is_awaited else ("--no-wait",)
    status, done = command_json("policy", "apply", str(folder), "--yes", *more)
    assert (status, done["applied"]) == (0, True)
    assert BARRIER & done.keys() == (BARRIER if is_awaited else set())
    assert command_json("policy", "apply", str(installed.settings.policies), "--yes")[0] == 0


@pytest.fixture
def silent_worker(installed):
    """A worker that never acknowledges anything and whose lease does not end while the test runs.

    It renewed an hour in the future, by the server's clock: however long the commands take, it counts.
    """

    async def put(fields):
        with EmbeddedValkey(installed.settings.state).running() as url:
            store = RedisStore(url)
            try:
                if fields is None:
                    await store.leave("silent")
                else:
                    await store.put_hash(WORKERS, {b"silent": b"0:1"})
            finally:
                await store.close()

    asyncio.run(put({}))
    yield
    asyncio.run(put(None))


def test_a_new_key_is_shown_even_when_it_is_not_sure_that_it_works_everywhere_yet(
    command, command_json, tenant, monkeypatch, silent_worker
):
    # It is shown once: the result of the wait must not prevent that. The exit status reports it.
    monkeypatch.setattr("gateway.operations.session.BARRIER_PATIENCE_SECONDS", -10.0)
    status, done = command_json("keys", "create", "--tenant", tenant)
    assert (status, done["sure"]) == (1, False)
    assert done["token"].startswith("cg_")
    status, out, said = command("keys", "create", "--tenant", tenant)
    assert status == 1
    assert out.startswith("cg_")
    assert "Not sure yet" in said
