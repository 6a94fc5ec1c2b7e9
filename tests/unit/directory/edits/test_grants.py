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


class TestTimes:
    async def test_a_grant_may_begin_and_end(self, add, listed):
        effect = await add(A, not_before=20.0, expires_at=30.0, now=10.0)
        [grant] = await listed()
        assert (grant.not_before, grant.expires_at) == (20.0, 30.0)
        assert "from 1970-01-01T00:00:20Z until 1970-01-01T00:00:30Z" in effect.sentences[0]

    async def test_adding_it_again_moves_the_end_and_keeps_its_id(self, add, listed):
        await add(A, expires_at=30.0, now=10.0)
        [first] = await listed()
        for expires_at in (40.0, 20.0, None):
            assert (await add(A, expires_at=expires_at, now=10.0)).is_changed
            [grant] = await listed()
            assert (grant.grant_id, grant.expires_at) == (first.grant_id, expires_at)
        effect = await add(A, expires_at=20.0, now=10.0)
        assert "it was without an end" in effect.sentences[0]
        assert not (await add(A, expires_at=20.0, now=10.0)).is_changed

    async def test_times_of_some_actions_leave_the_others(self, add, listed):
        await add(A, actions=("read", "infer"))
        await add(A, actions=("read",), expires_at=30.0, now=10.0)
        rights = {(grant.actions, grant.expires_at) for grant in await listed()}
        assert rights == {(frozenset({"infer"}), None), (frozenset({"read"}), 30.0)}
        await add(A, actions=("infer",), expires_at=30.0, now=10.0)
        [grant] = await listed()
        assert (grant.actions, grant.expires_at) == (frozenset({"read", "infer"}), 30.0)

    async def test_a_grant_of_the_folder_is_left_alone_and_told_of(self, run, store, add, listed):
        of_folder = Grant(grant_id="doc_1", actions=frozenset({"read"}), models=(A,), source="policies:acme")
        await change(store, lambda changes: changes.put_grants(Grants(tenant_id=ACME, grants=(of_folder,))))
        effect = await add(A, expires_at=30.0, now=10.0)
        assert "without an end, by doc_1" in effect.sentences[1]
        assert "doc_1" in [grant.grant_id for grant in await listed()]

    async def test_an_expiry_that_has_passed_is_refused(self, add, listed):
        with pytest.raises(Conflict):
            await add(A, expires_at=10.0, now=10.0)
        assert await listed() == ()

    async def test_what_remains_of_a_grant_keeps_its_times(self, add, remove, store, listed):
        both = Grant(grant_id="g", actions=frozenset({"read", "infer"}), models=(A, B), expires_at=30.0)
        await change(store, lambda changes: changes.put_grants(Grants(tenant_id=ACME, grants=(both,))))
        await remove(A, actions=("read",))
        assert {grant.expires_at for grant in await listed()} == {30.0}


class TestTenantsOfOneName:
    """What an earlier tenant of the name left behind is nobody's."""

    async def test_a_tenant_neither_has_nor_extends_grants_of_another_record(self, store, acme, add, listed):
        left = Grant(grant_id="grant_left", actions=frozenset({"read"}), models=(A,))
        held = Grants(tenant_id=ACME, tenant_record="ten_00000000000A", grants=(left,))
        await change(store, lambda changes: changes.put_grants(held))
        await change(store, lambda changes: changes.put_tenant(replace(acme, record_id="ten_00000000000B")))
        await add(B)
        found = await Listing(PlainFacts(store)).find_grants(ACME)
        assert found.tenant_record == "ten_00000000000B"
        assert [grant.models for grant in found.grants] == [(B,)]

    async def test_a_tenant_that_is_being_removed_is_granted_nothing(self, store, acme, add):
        removing = replace(acme, removal="rem_1", is_suspended=True)
        await change(store, lambda changes: changes.put_tenant(removing))
        with pytest.raises(Conflict, match="being removed"):
            await add(A)
