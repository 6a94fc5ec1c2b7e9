from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.reading.listing import PAGE, Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grant, Grants, ModelRule
from gateway.model.names import KeyId, ModelId, Pattern, TenantId

pytestmark = pytest.mark.anyio


@pytest.fixture
def reported():
    return []


@pytest.fixture
def listing(store, reported):
    return Listing(PlainFacts(store), on_unreadable=reported.append)


async def test_everything_that_was_written_is_listed_in_order(store, listing, acme, policy):
    globex = replace(acme, tenant_id=TenantId("globex"))
    grant = Grant(grant_id="g", actions=frozenset({"read"}), models=(Pattern("a"),))
    rules = [ModelRule(pattern=Pattern(text), owner=acme.tenant_id) for text in ("a/*", "a/b")]
    aliases = [Alias(alias=ModelId(text), canonical=ModelId("a/b")) for text in ("x", "y")]

    async def fill(changes):
        for tenant in (globex, acme):
            await changes.put_tenant(tenant)
        for rule in rules:
            await changes.put_rule(rule)
        for alias in aliases:
            await changes.put_alias(alias)
        await changes.put_grants(Grants(tenant_id=acme.tenant_id, grants=(grant,)))
        await changes.put_policy(policy)

    await change(store, fill)
    assert await listing.list_tenants() == [replace(tenant, generation=1) for tenant in (acme, globex)]
    assert await listing.list_rules() == [replace(rule, generation=1) for rule in rules]
    assert await listing.list_aliases() == [replace(alias, generation=1) for alias in aliases]
    assert await listing.list_grants(acme.tenant_id) == (grant,)
    assert await listing.list_grants(globex.tenant_id) == ()
    assert [record.tenant_id for record in await listing.list_all_grants()] == ["acme"]
    assert await listing.find_policy() == replace(policy, generation=1)


async def test_nothing_there_is_nothing_listed(listing, acme):
    assert await listing.list_tenants() == []
    assert await listing.find_tenant(acme.tenant_id) is None
    assert await listing.find_key(KeyId("key_000000000001")) is None
    assert await listing.find_policy() is None
    assert await listing.list_keys(acme.tenant_id) == []
    assert not await listing.has_keys(acme.tenant_id)


async def test_keys_are_listed_by_tenant_over_many_pages(store, listing, make_key, acme):
    numbers = range(PAGE + 20)

    async def fill(changes):
        for number in numbers:
            await changes.put_key(make_key(number), number.to_bytes(32))
        await changes.put_key(make_key(9_999, tenant=None), b"\xff" * 32)

    await change(store, fill)
    keys = await listing.list_keys(acme.tenant_id)
    assert [key.key_id for key in keys] == [make_key(number).key_id for number in numbers]
    assert [key.key_id for key in await listing.list_keys(None)] == [make_key(9_999).key_id]
    assert await listing.has_keys(acme.tenant_id)
    assert await listing.find_key(make_key(7).key_id) == replace(make_key(7), generation=1)


async def test_a_malformed_record_hides_no_other_and_is_reported(store, listing, corrupt, reported, acme):
    await change(store, lambda changes: changes.put_tenant(acme))
    await change(store, lambda changes: changes.put_tenant(replace(acme, tenant_id=TenantId("broken"))))
    name = names.tenant_fact(TenantId("broken"))
    await corrupt(name)
    assert [tenant.tenant_id for tenant in await listing.list_tenants()] == ["acme"]
    assert reported == [name.decode()]


async def test_a_malformed_record_asked_for_by_name_is_a_conflict(listing, corrupt, acme):
    await corrupt(names.tenant_fact(acme.tenant_id))
    with pytest.raises(Conflict, match="does not parse"):
        await listing.find_tenant(acme.tenant_id)


async def test_an_index_member_that_is_no_name_is_reported_and_passed_over(store, listing, reported):
    async def plan(snapshot, batch):
        batch.set_add += [(names.TENANTS, b"no tenant"), (names.PATTERNS, b"\xff*"), (names.ALIASES, b"..")]
        batch.set_add.append((names.ADMIN_KEYS, b"short"))

    await store.transact(plan)
    assert await listing.list_tenants() == await listing.list_rules() == await listing.list_aliases() == []
    assert await listing.list_keys(None) == []
    assert len(reported) == 4


async def test_a_key_id_that_points_to_no_digest_is_a_conflict(store, listing, make_key):
    name, field = names.key_digest(make_key().key_id)
    await store.put_hash(name, {field: b"short"})
    with pytest.raises(Conflict, match="does not parse"):
        await listing.find_key(make_key().key_id)
