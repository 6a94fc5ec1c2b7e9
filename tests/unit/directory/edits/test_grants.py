from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.grants import add_grants, remove_grants
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Conflict
from gateway.model.facts import Grant, Grants
from gateway.model.names import GroupName, PackageId, Pattern, TenantId

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
A, B = Pattern("globex/a/*"), Pattern("globex/b")
GROUP = GroupName("cars")
PACKAGE = PackageId("abc123")


@pytest.fixture(autouse=True)
async def tenant(store, acme):
    await change(store, lambda changes: changes.put_tenant(acme))


@pytest.fixture
def listed(store):
    async def read():
        return await Listing(PlainFacts(store)).list_grants(ACME)

    return read


@pytest.fixture
def add(run):
    async def adding(*models, actions=("read",), **more):
        return await run(add_grants, tenant_id=ACME, models=models, actions=actions, **more)

    return adding


@pytest.fixture
def remove(run):
    async def removing(*models, **more):
        return await run(remove_grants, tenant_id=ACME, models=models, **more)

    return removing


async def test_each_pattern_and_group_gets_a_grant_of_its_own(add, listed):
    await add(A, B, groups=[GROUP])
    grants = await listed()
    assert [(grant.models, grant.groups) for grant in grants] == [((A,), ()), ((B,), ()), ((), (GROUP,))]
    assert len({grant.grant_id for grant in grants}) == 3
    assert all(re.fullmatch(r"grant_[0-9a-f]{8}", grant.grant_id) for grant in grants)


async def test_the_same_grant_twice_is_one_and_keeps_its_id(add, remove, listed):
    await add(A)
    (first,) = await listed()
    assert not (await add(A)).is_changed
    await remove(A)
    await add(A)
    assert await listed() == (first,)


async def test_more_actions_widen_the_grant_and_keep_its_id(add, listed):
    await add(A)
    (narrow,) = await listed()
    await add(A, actions=["infer", "discover"])
    assert await listed() == (replace(narrow, actions=frozenset({"read", "infer", "discover"})),)
    assert not (await add(A, actions=["infer"])).is_changed


async def test_a_grant_on_packages_is_another_grant(add, remove, listed):
    await add(A)
    await add(A, packages=[PACKAGE])
    whole, narrowed = await listed()
    assert (whole.packages, narrowed.packages) == ((), (PACKAGE,))
    await remove(A, packages=[PACKAGE])
    assert await listed() == (whole,)


async def test_what_is_removed_is_gone_and_twice_changes_nothing(add, remove, listed):
    await add(A, B)
    assert (await remove(A)).is_changed
    assert not (await remove(A)).is_changed
    assert [grant.models for grant in await listed()] == [(B,)]


async def test_single_actions_are_removed(add, remove, listed):
    await add(A, actions=["read", "infer"])
    await remove(A, actions=["infer"])
    assert [grant.actions for grant in await listed()] == [{"read"}]
    assert not (await remove(A, actions=["infer"])).is_changed


async def test_one_pattern_is_taken_out_of_a_grant_on_several(store, remove, listed):
    grant = Grant(grant_id="grant_x", actions=frozenset({"read", "infer"}), models=(A, B))
    await change(store, lambda changes: changes.put_grants(Grants(tenant_id=ACME, grants=(grant,))))
    await remove(A, actions=["infer"])
    assert {(found.models, found.actions) for found in await listed()} == {
        ((B,), frozenset({"read", "infer"})),
        ((A,), frozenset({"read"})),
    }
    await remove(B)
    assert [(found.models, found.actions) for found in await listed()] == [((A,), {"read"})]


async def test_a_grant_of_the_folder_is_removed_by_its_file_or_by_force(store, add, remove, listed):
    grant = Grant(grant_id="grant_x", actions=frozenset({"read"}), models=(A,), source="policies:acme")
    await change(store, lambda changes: changes.put_grants(Grants(tenant_id=ACME, grants=(grant,))))
    with pytest.raises(Conflict, match=r"acme\.toml"):
        await remove(A)
    await add(A, actions=["infer"])  # a second grant, not an extension of the first
    assert [found.source for found in await listed()] == ["policies:acme", "cli"]
    await remove(A, force=True)
    assert await listed() == ()


async def test_an_id_that_another_grant_has_is_not_used_twice(store, add, listed):
    await add(A)
    (taken,) = await listed()
    clash = replace(taken, models=(B,), source="policies:acme")
    await change(store, lambda changes: changes.put_grants(Grants(tenant_id=ACME, grants=(clash,))))
    await add(A)
    assert len({grant.grant_id for grant in await listed()}) == 2


@pytest.mark.parametrize("actions", [[], ["identify"], ["read", "write"]])
async def test_only_what_can_be_granted_is_granted(add, actions):
    with pytest.raises(Conflict, match="discover, infer, read"):
        await add(A, actions=actions)


async def test_a_grant_on_nothing_or_to_nobody_is_refused(add, run):
    with pytest.raises(Conflict, match="at least one"):
        await add()
    with pytest.raises(Conflict, match="no tenant"):
        await run(add_grants, tenant_id=TenantId("nobody"), models=[A], actions=["read"])
