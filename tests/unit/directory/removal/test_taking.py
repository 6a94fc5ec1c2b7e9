from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.grants import add_grants
from gateway.directory.edits.keys import create_key, rotate_key
from gateway.directory.edits.models import add_alias, own
from gateway.directory.edits.tenants import (
    create_tenant,
    resume_tenant,
    set_allows,
    set_degraded,
    suspend_tenant,
)
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.removal.journal import RemovalStage, find_removal, load_taken
from gateway.directory.removal.ownership import belongings_of
from gateway.directory.removal.taking import (
    begin_removal,
    close_rules,
    delete_rules,
    end_removal,
    revoke_bindings,
    revoke_keys,
    take_aliases,
    take_grants_of_others,
    take_own_grants,
)
from gateway.model.errors import Conflict
from gateway.model.facts import DEFAULT_SCOPES, Grant, Grants, Key, ModelRule, Visibility
from gateway.model.issuers import Binding

pytestmark = pytest.mark.anyio

RECORD = "ten_00000000000A"
DIGEST = bytes(32)


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
    return replace(acme, record_id=RECORD)


def key(number, tenant_id="acme", **more):
    return Key(
        key_id=f"key_{number:012d}",
        tenant=tenant_id,
        name="",
        scopes=DEFAULT_SCOPES,
        networks=(),
        created_at=1.0,
        pepper_id="p1",
        **more,
    )


@pytest.fixture
async def begun(run, put, tenant):
    await put(tenant, replace(tenant, tenant_id="globex", record_id="ten_00000000000G"))
    return await run(begin_removal, tenant_id="acme", removal_id="rem_1", now=10.0, restorable_seconds=60.0)


async def test_from_the_first_step_on_a_tenant_has_nothing_new(run, begun, listing, tenant):
    found = await listing.find_tenant("acme")
    assert (found.is_suspended, found.removal) == (True, "rem_1")
    edits = {
        create_key: {"key": key(1), "digest": DIGEST},
        add_grants: {"tenant_id": "acme", "models": ["globex/x"], "actions": ["read"]},
        own: {"tenant_id": "acme", "patterns": ["acme/*"]},
        resume_tenant: {"tenant_id": "acme", "force": True},
        set_allows: {"tenant_id": "acme", "actions": ["cache-read"], "is_allowed": True, "force": True},
        set_degraded: {"tenant_id": "acme", "seconds": 60.0, "force": True},
        create_tenant: {"tenant_id": "acme", "name": "Acme", "now": 1.0},
    }
    for edit, arguments in edits.items():
        with pytest.raises(Conflict, match="removed"):
            await run(edit, **arguments)
    await run(suspend_tenant, tenant_id="acme")  # an incident waits for nothing


async def test_a_removal_that_is_begun_again_is_the_same(run, begun):
    again = await run(begin_removal, tenant_id="acme", removal_id="rem_2", now=20.0, restorable_seconds=1.0)
    assert again == begun


async def test_a_key_made_before_is_revoked_and_one_made_meanwhile_does_not_exist(
    run, put, tenant, listing, store
):
    await put(tenant)
    await run(create_key, key=key(1), digest=DIGEST)
    assert (await listing.find_key(key(1).key_id)).tenant_record == RECORD
    await run(begin_removal, tenant_id="acme", removal_id="rem_1", now=10.0, restorable_seconds=60.0)
    with pytest.raises(Conflict):
        await run(
            rotate_key,
            key_id=key(1).key_id,
            successor=key(2),
            digest=bytes([1]) * 32,
            now=11.0,
            overlap_seconds=0,
        )
    assert (
        await run(revoke_keys, removal_id="rem_1", key_ids=await listing.list_key_ids(["acme"]), now=12.0)
        == 1
    )
    assert (
        await run(revoke_keys, removal_id="rem_1", key_ids=await listing.list_key_ids(["acme"]), now=13.0)
        == 0
    )
    assert (await listing.find_key(key(1).key_id)).revoked_at == 12.0
    assert (await find_removal(listing, "rem_1")).keys == 1


async def test_keys_of_another_record_of_the_name_are_not_touched(run, begun, store, listing):
    async def put(changes):
        await changes.put_key(key(1, tenant_record="ten_00000000000B"), DIGEST)

    await change(store, put)
    assert await run(revoke_keys, removal_id="rem_1", key_ids=[key(1).key_id], now=12.0) == 0


async def test_bindings_are_revoked(run, begun, put, listing):
    binding = Binding(
        binding_id="bnd_000000000001", url="https://ci.example", subject="s", tenant="acme",
        tenant_record=RECORD, rules=("r",), created_at=1.0,
    )  # fmt: skip
    await put(binding)
    assert await run(revoke_bindings, removal_id="rem_1", bindings=[binding], now=12.0) == 1
    assert (await listing.list_all_bindings())[0].revoked_at == 12.0


def grant(name, *models, groups=(), **more):
    return Grant(grant_id=name, actions=frozenset({"read"}), models=models, groups=groups, **more)


async def test_own_grants_are_taken_into_the_journal(run, begun, put, listing):
    held = Grants(tenant_id="acme", tenant_record=RECORD, grants=(grant("g", "globex/x"),))
    await put(held)
    assert await run(take_own_grants, removal_id="rem_1", now=11.0) == 1
    assert await listing.find_grants("acme") is None
    assert await load_taken(listing, await find_removal(listing, "rem_1")) == [held]


async def test_rules_are_closed_before_any_is_deleted_and_never_open_meanwhile(run, begun, put, listing):
    rules = [
        ModelRule(pattern="acme/*", owner="acme", owner_record=RECORD, visibility=Visibility.PUBLIC),
        ModelRule(pattern="acme/secret", visibility=Visibility.PRIVATE),
        ModelRule(pattern="acme/open", visibility=Visibility.PUBLIC, groups=("g",), expires_at=99.0),
    ]
    await put(*rules)
    patterns = [rule.pattern for rule in rules]
    assert await run(close_rules, removal_id="rem_1", patterns=patterns, now=11.0) == 3
    for rule in await listing.list_rules():
        assert (rule.owner, rule.owner_record, rule.visibility, rule.groups) == (
            "acme", RECORD, Visibility.PRIVATE, (),
        )  # fmt: skip
    assert await load_taken(listing, await find_removal(listing, "rem_1")) == rules
    assert await run(close_rules, removal_id="rem_1", patterns=patterns, now=12.0) == 0
    assert await run(delete_rules, removal_id="rem_1", patterns=patterns) == 3
    assert await listing.list_rules() == []


@pytest.mark.parametrize(
    "broader",
    [
        ModelRule(pattern="hub/*", owner="hub"),
        ModelRule(pattern="hub/*", visibility=Visibility.PUBLIC),
        ModelRule(pattern="hub/*", visibility=Visibility.PUBLIC, not_before=99.0),
        ModelRule(pattern="hub/*", groups=("vision",)),
    ],
    ids=["owned", "public", "public later", "grouped"],
)
async def test_a_rule_that_a_broader_one_would_open_stays_closed(run, begun, put, listing, broader):
    mine = ModelRule(pattern="hub/acme/*", owner="acme", owner_record=RECORD)
    below = replace(mine, pattern="hub/acme/x")
    await put(broader, mine, below)
    patterns = [mine.pattern, below.pattern]
    await run(close_rules, removal_id="rem_1", patterns=patterns, now=11.0)
    assert await run(delete_rules, removal_id="rem_1", patterns=patterns) == 1
    rules = {rule.pattern: rule for rule in await listing.list_rules()}
    assert rules.keys() == {"hub/*", "hub/acme/*"}
    assert rules["hub/acme/*"].visibility is Visibility.PRIVATE


async def test_a_rule_that_somebody_else_got_meanwhile_is_theirs(run, begun, put, listing):
    theirs = ModelRule(pattern="acme/x", owner="globex", visibility=Visibility.PUBLIC)
    await put(theirs)
    assert await run(close_rules, removal_id="rem_1", patterns=["acme/x"], now=11.0) == 0
    assert await run(delete_rules, removal_id="rem_1", patterns=["acme/x"]) == 0
    assert [replace(rule, generation=0) for rule in await listing.list_rules()] == [theirs]


async def test_grants_of_others_end_on_its_models_and_stay_on_the_rest(run, begun, put, listing):
    rule = ModelRule(pattern="acme/*", owner="acme", owner_record=RECORD, groups=("own",))
    lost, both = grant("lost", "acme/x"), grant("both", "acme/y", "hub/*", groups=("own",), expires_at=99.0)
    await put(rule, Grants(tenant_id="globex", tenant_record="ten_00000000000G", grants=(lost, both)))
    belongings = belongings_of(("acme", RECORD), [rule], [])
    step = {"removal_id": "rem_1", "holders": ["globex"], "belongings": belongings, "now": 11.0}
    assert await run(take_grants_of_others, **step) == 2
    assert await listing.list_grants("globex") == (grant("both", "hub/*", expires_at=99.0),)
    [taken] = await load_taken(listing, await find_removal(listing, "rem_1"))
    assert taken.grants == (lost, grant("both", "acme/y", groups=("own",), expires_at=99.0))
    assert await run(take_grants_of_others, **step) == 0


async def test_aliases_are_taken_unless_they_stand_for_something_else_now(run, begun, listing):
    for name in ("one", "two"):
        await run(add_alias, alias=name, canonical="acme/x")
    aliases = await listing.list_aliases()
    await run(add_alias, alias="two", canonical="globex/x")
    assert await run(take_aliases, removal_id="rem_1", aliases=aliases, now=11.0) == 1
    assert [alias.alias for alias in await listing.list_aliases()] == ["two"]


async def test_facts_of_the_policy_folder_stop_a_step_and_stay(run, begun, put, listing):
    rule = ModelRule(pattern="acme/x", owner="acme", owner_record=RECORD, source="policies:acme")
    await put(rule)
    with pytest.raises(Conflict, match="policy folder"):
        await run(close_rules, removal_id="rem_1", patterns=["acme/x"], now=11.0)
    assert [replace(one, generation=0) for one in await listing.list_rules()] == [rule]


async def test_a_tenant_of_the_folder_is_removed_only_once_its_document_is_gone(run, put, tenant):
    begin = {"tenant_id": "acme", "removal_id": "rem_1", "now": 10.0, "restorable_seconds": 60.0}
    await put(replace(tenant, source="policies:acme"))
    with pytest.raises(Conflict, match=r"take tenants/acme.toml out"):
        await run(begin_removal, **begin)
    await put(replace(tenant, source="policies:acme", is_suspended=True))  # as `policy apply` leaves it
    await run(begin_removal, **begin)


async def test_a_tenant_of_the_platform_is_not_removed(run, put, tenant):
    await put(replace(tenant, source="platform"))
    with pytest.raises(Conflict, match="platform"):
        await run(begin_removal, tenant_id="acme", removal_id="r", now=1.0, restorable_seconds=1.0)


async def test_at_the_end_the_name_is_free_and_the_keys_stay_readable(run, begun, put, listing, store):
    async def make(changes):
        await changes.put_key(key(1, tenant_record=RECORD), DIGEST)

    await change(store, make)
    await run(revoke_keys, removal_id="rem_1", key_ids=[key(1).key_id], now=11.0)
    removal = await run(end_removal, removal_id="rem_1", now=12.0)
    assert (removal.stage, removal.ended_at) == (RemovalStage.REMOVED, 12.0)
    assert await listing.find_tenant("acme") is None
    assert "acme" not in [tenant.tenant_id for tenant in await listing.list_tenants()]
    assert await listing.list_removed_tenants() == ["acme"]
    assert (await listing.find_key(key(1).key_id)).revoked_at == 11.0
    for edit in (take_own_grants, end_removal):
        with pytest.raises(Conflict, match="removed meanwhile"):
            await run(edit, removal_id="rem_1", now=13.0)
    await run(create_tenant, tenant_id="acme", name="Acme", now=14.0)
    new = await listing.find_tenant("acme")
    assert new.record_id not in {None, RECORD}
