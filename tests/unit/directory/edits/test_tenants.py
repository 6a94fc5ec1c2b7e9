from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.tenants import (
    create_tenant,
    resume_tenant,
    set_allows,
    set_degraded,
    set_image_hosts,
    suspend_tenant,
)
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Conflict
from gateway.model.facts import MAX_DEGRADED_SECONDS
from gateway.model.names import TenantId

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")


async def test_a_tenant_is_created_once_and_the_second_time_changes_nothing(store, run):
    assert (await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)).is_changed
    assert not (await run(create_tenant, tenant_id=ACME, name="Acme", now=6.0)).is_changed
    tenant = await Listing(PlainFacts(store)).find_tenant(ACME)
    assert (tenant.created_at, tenant.is_suspended, tenant.generation) == (5.0, False, 1)


async def test_a_tenant_of_another_name_is_not_overwritten(run):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    with pytest.raises(Conflict, match="Acme"):
        await run(create_tenant, tenant_id=ACME, name="Other", now=5.0)


async def test_suspending_and_resuming_say_whether_they_changed_anything(store, run):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    for operation, is_suspended in ((suspend_tenant, True), (resume_tenant, False)):
        assert (await run(operation, tenant_id=ACME)).is_changed
        assert (await Listing(PlainFacts(store)).find_tenant(ACME)).is_suspended is is_suspended
        assert not (await run(operation, tenant_id=ACME)).is_changed


async def test_a_tenant_that_is_not_there_cannot_be_suspended(run):
    with pytest.raises(Conflict, match="no tenant"):
        await run(suspend_tenant, tenant_id=ACME)


@pytest.fixture
async def folder_tenant(store, acme):
    """A tenant of a policy document, suspended or not, with a degraded period or not."""

    async def put(**fields):
        tenant = replace(acme, source="policies:acme", **fields)
        await change(store, lambda changes: changes.put_tenant(tenant))

    return put


async def test_hosts_of_images_that_a_document_names_are_taken_away_without_force_and_not_added(
    store, run, folder_tenant
):
    await folder_tenant(image_hosts=("a.example", "b.example"))
    for wider in (("a.example", "c.example"), ("a.example", "b.example", "c.example")):
        with pytest.raises(Conflict):
            await run(set_image_hosts, tenant_id=ACME, hosts=wider)
    assert (await run(set_image_hosts, tenant_id=ACME, hosts=("b.example", "b.example"))).is_changed
    assert (await Listing(PlainFacts(store)).find_tenant(ACME)).image_hosts == ("b.example",)
    assert not (await run(set_image_hosts, tenant_id=ACME, hosts=("b.example",))).is_changed
    assert (await run(set_image_hosts, tenant_id=ACME, hosts=("c.example",))).is_changed  # now a command's


async def test_what_a_document_allows_is_taken_away_without_force_and_not_added(store, run, folder_tenant):
    await folder_tenant(allows=("cache-read", "custom-python"))
    with pytest.raises(Conflict):
        await run(set_allows, tenant_id=ACME, actions=["cache-write"], is_allowed=True)
    with pytest.raises(Conflict):
        await run(set_allows, tenant_id=ACME, actions=["read"], is_allowed=False)
    assert not (await run(set_allows, tenant_id=ACME, actions=["cache-read"], is_allowed=True)).is_changed
    assert (await run(set_allows, tenant_id=ACME, actions=["cache-read"], is_allowed=False)).is_changed
    assert (await Listing(PlainFacts(store)).find_tenant(ACME)).allows == ("custom-python",)
    assert not (await run(set_allows, tenant_id=ACME, actions=["cache-read"], is_allowed=False)).is_changed
    assert (await run(set_allows, tenant_id=ACME, actions=["cache-write"], is_allowed=True)).is_changed


async def test_an_incident_does_not_wait_for_the_policy_folder(run, folder_tenant):
    await folder_tenant()
    assert (await run(suspend_tenant, tenant_id=ACME)).is_changed


async def test_what_the_folder_suspended_is_resumed_by_its_file_or_by_force(run, folder_tenant):
    await folder_tenant(is_suspended=True)
    with pytest.raises(Conflict, match=r"acme\.toml"):
        await run(resume_tenant, tenant_id=ACME)
    assert (await run(resume_tenant, tenant_id=ACME, force=True)).is_changed


async def test_a_degraded_time_of_the_folder_is_shortened_freely_and_lengthened_by_force(
    store, run, folder_tenant
):
    await folder_tenant(degraded_seconds=60.0)
    with pytest.raises(Conflict, match=r"acme\.toml"):
        await run(set_degraded, tenant_id=ACME, seconds=61.0)
    assert (await run(set_degraded, tenant_id=ACME, seconds=61.0, force=True)).is_changed
    await folder_tenant(degraded_seconds=60.0)
    assert (await run(set_degraded, tenant_id=ACME, seconds=0.0)).is_changed
    assert not (await run(set_degraded, tenant_id=ACME, seconds=0.0)).is_changed
    assert (await Listing(PlainFacts(store)).find_tenant(ACME)).degraded_seconds == 0.0


@pytest.mark.parametrize("seconds", [-1.0, MAX_DEGRADED_SECONDS + 1, float("nan"), float("inf")])
async def test_a_degraded_time_has_bounds(run, seconds):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    with pytest.raises(Conflict, match="1 hour"):
        await run(set_degraded, tenant_id=ACME, seconds=seconds)


async def test_a_tenant_keeps_its_degraded_time_when_it_is_suspended(store, run):
    await run(create_tenant, tenant_id=ACME, name="Acme", now=5.0)
    await run(set_degraded, tenant_id=ACME, seconds=60.0)
    await run(suspend_tenant, tenant_id=ACME)
    assert (await Listing(PlainFacts(store)).find_tenant(ACME)).degraded_seconds == 60.0
