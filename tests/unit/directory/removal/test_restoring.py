from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.tenants import create_tenant
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.removal.journal import RemovalStage, find_removal, load_taken
from gateway.directory.removal.restoring import begin_restoration, end_restoration, give_back
from gateway.directory.removal.taking import begin_removal, end_removal, take_own_grants
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grant, Grants, ModelRule, Visibility

pytestmark = pytest.mark.anyio

RECORD, GLOBEX = "ten_00000000000A", "ten_00000000000G"


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


@pytest.fixture
def put(store):
    async def putting(*facts):
        async def work(changes):
            for fact in facts:
                await changes.put(fact)

        await change(store, work)

    return putting


@pytest.fixture
def tenant(acme):
    return replace(acme, record_id=RECORD, allows=("cache-read",))


@pytest.fixture
async def removed(run, put, tenant):
    await put(tenant, replace(tenant, tenant_id="globex", record_id=GLOBEX))
    await run(begin_removal, tenant_id="acme", removal_id="rem_1", now=10.0, restorable_seconds=60.0)
    await run(end_removal, removal_id="rem_1", now=12.0)


@pytest.fixture
async def restoring(run, removed):
    await run(begin_restoration, removal_id="rem_1", now=20.0)


def grant(name, *models, groups=()):
    return Grant(grant_id=name, actions=frozenset({"read"}), models=models, groups=groups)


async def test_a_tenant_comes_back_as_it_was_with_its_own_record_id(run, restoring, listing, tenant):
    meanwhile = await listing.find_tenant("acme")
    assert (meanwhile.is_suspended, meanwhile.removal) == (True, "rem_1")
    removal = await run(end_restoration, removal_id="rem_1")
    assert removal.stage is RemovalStage.RESTORED
    assert replace(await listing.find_tenant("acme"), generation=0) == tenant
    with pytest.raises(Conflict, match="restored from this removal already"):
        await run(begin_restoration, removal_id="rem_1", now=21.0)


async def test_the_limit_is_a_moment(run, removed):
    with pytest.raises(Conflict, match="until 1970-01-01T00:01:10Z"):
        await run(begin_restoration, removal_id="rem_1", now=70.0)
    await run(begin_restoration, removal_id="rem_1", now=69.999)
    await run(begin_restoration, removal_id="rem_1", now=99.0)  # one that was begun in time goes on


async def test_a_tenant_that_has_the_name_now_is_in_the_way(run, removed, listing):
    await run(create_tenant, tenant_id="acme", name="Acme", now=13.0)
    new = await listing.find_tenant("acme")
    with pytest.raises(Conflict, match=new.record_id):
        await run(begin_restoration, removal_id="rem_1", now=20.0)
    assert await listing.find_tenant("acme") == new


async def test_a_removal_that_did_not_end_can_be_taken_back(run, put, tenant, listing):
    held = Grants(tenant_id="acme", tenant_record=RECORD, grants=(grant("g", "globex/x"),))
    await put(tenant, held)
    await run(begin_removal, tenant_id="acme", removal_id="rem_1", now=10.0, restorable_seconds=60.0)
    await run(take_own_grants, removal_id="rem_1", now=11.0)
    await run(begin_restoration, removal_id="rem_1", now=20.0)
    taken = await load_taken(listing, await find_removal(listing, "rem_1"))
    assert await run(give_back, removal_id="rem_1", facts=taken) == ()
    await run(end_restoration, removal_id="rem_1")
    assert await listing.list_grants("acme") == held.grants


async def test_rules_and_aliases_come_back_where_nobody_has_them_now(run, restoring, put, listing):
    free = ModelRule(pattern="acme/*", owner="acme", owner_record=RECORD, visibility=Visibility.PUBLIC)
    closed = ModelRule(pattern="hub/acme", owner="acme", owner_record=RECORD, visibility=Visibility.PRIVATE)
    sold = ModelRule(pattern="acme/sold", owner="acme", owner_record=RECORD)
    await put(
        closed, replace(sold, owner="globex", owner_record=GLOBEX), Alias(alias="a", canonical="globex/x")
    )
    aliases = [Alias(alias=name, canonical="acme/1") for name in ("a", "b")]
    facts = [sold, replace(closed, visibility=None), free, *aliases]
    left = await run(give_back, removal_id="rem_1", facts=facts)
    assert left == ("acme/sold belongs to tenant globex now", "the alias a stands for globex/x now")
    rules = {rule.pattern: rule for rule in await listing.list_rules()}
    assert rules["acme/*"].visibility is Visibility.PUBLIC
    assert rules["hub/acme"].visibility is None
    assert rules["acme/sold"].owner == "globex"
    assert {alias.alias: alias.canonical for alias in await listing.list_aliases()} == {
        "a": "globex/x",
        "b": "acme/1",
    }
    assert await run(give_back, removal_id="rem_1", facts=facts) == left  # repeated, it is the same


async def test_grants_of_others_come_back_beside_what_they_have_now(run, restoring, put, listing):
    now = (grant("both", "hub/*"), grant("new", "x/y"))
    await put(Grants(tenant_id="globex", tenant_record=GLOBEX, grants=now))
    lost = Grants(
        tenant_id="globex", tenant_record=GLOBEX, grants=(grant("lost", "acme/x"), grant("both", "acme/y"))
    )
    assert await run(give_back, removal_id="rem_1", facts=[lost]) == ()
    found = {one.grant_id: one.models for one in await listing.list_grants("globex")}
    assert found == {"lost": ("acme/x",), "both": ("hub/*", "acme/y"), "new": ("x/y",)}


async def test_a_tenant_of_the_name_of_a_former_holder_gets_nothing(run, restoring, listing):
    lost = Grants(tenant_id="globex", tenant_record="ten_00000000000F", grants=(grant("lost", "acme/x"),))
    assert await run(give_back, removal_id="rem_1", facts=[lost]) == (
        "tenant globex is gone, which had 1 grants",
    )
    assert await listing.list_grants("globex") == ()


async def test_a_grant_that_says_something_else_now_is_left(run, restoring, put, listing):
    changed = replace(grant("g", "hub/*"), expires_at=99.0)
    await put(Grants(tenant_id="globex", tenant_record=GLOBEX, grants=(changed,)))
    lost = Grants(
        tenant_id="globex", tenant_record=GLOBEX, grants=(grant("g", "acme/x"), grant("h", "acme/y"))
    )
    left = await run(give_back, removal_id="rem_1", facts=[lost])
    assert left == ("the grant g of globex says something else now",)
    assert {one.grant_id for one in await listing.list_grants("globex")} == {"g", "h"}
