from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.directory.changes import change
from gateway.directory.listing import Listing, StoreReading
from gateway.directory.operations import create_tenant, resume_tenant, suspend_tenant
from gateway.model.errors import Conflict
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")


async def test_a_tenant_is_created_once_and_the_second_time_changes_nothing(store, run):
    assert (await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)).is_changed
    assert not (await run(create_tenant, tenant_id=ACME, name="Acme", now=6.0)).is_changed
    tenant = await Listing(StoreReading(store)).find_tenant(ACME)
    assert (tenant.created_at, tenant.is_suspended, tenant.generation) == (5.0, False, 1)


async def test_a_tenant_of_another_name_is_not_overwritten(run):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    with pytest.raises(Conflict, match="Acme"):
        await run(create_tenant, tenant_id=ACME, name="Other", now=5.0)


async def test_suspending_and_resuming_say_whether_they_changed_anything(store, run):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    for operation, is_suspended in ((suspend_tenant, True), (resume_tenant, False)):
        assert (await run(operation, tenant_id=ACME)).is_changed
        assert (await Listing(StoreReading(store)).find_tenant(ACME)).is_suspended is is_suspended
        assert not (await run(operation, tenant_id=ACME)).is_changed


async def test_a_tenant_that_is_not_there_cannot_be_suspended(run):
    with pytest.raises(Conflict, match="no tenant"):
        await run(suspend_tenant, tenant_id=ACME)


async def test_a_tenant_of_the_folder_is_suspended_by_its_file_or_by_force(store, run, acme):
    await change(store, lambda changes: changes.put_tenant(replace(acme, source="policies:acme")))
    with pytest.raises(Conflict, match=r"acme\.toml"):
        await run(suspend_tenant, tenant_id=ACME)
    assert (await run(suspend_tenant, tenant_id=ACME, force=True)).is_changed
