from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_store import RedisStore
from gateway.adapters.redis_transaction import STEPS
from gateway.directory.edits import changes as changes_module
from gateway.directory.edits.changes import MAX_GRANTED_NAMES, MAX_GRANTS, MAX_GROUPS_OF_PATTERN, change
from gateway.directory.edits.grants import add_grants
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grant, Grants, ModelRule, Visibility
from gateway.model.names import GroupName, ModelId, Pattern, TenantId
from gateway.model.stores import Moment

pytestmark = pytest.mark.anyio

DIGEST = b"\x01" * 32


@pytest.fixture
def listing(store):
    return Listing(PlainFacts(store))


async def test_a_fact_carries_the_generation_of_its_last_change(store, listing, acme):
    for generation in (1, 2, 3):
        _, reached = await change(store, lambda changes: changes.put_tenant(acme))
        assert reached.generation == generation == (await listing.find_tenant(acme.tenant_id)).generation


async def test_what_is_put_is_seen_within_the_same_transaction(store, acme, make_key):
    rule = ModelRule(pattern=Pattern("a/*"), owner=acme.tenant_id)

    async def work(changes):
        await changes.put_tenant(acme)
        await changes.put_rule(rule)
        await changes.put_key(make_key(), DIGEST)
        assert (await changes.find_tenant(acme.tenant_id)).name == "Acme"
        assert [found.pattern for found in await changes.list_rules()] == ["a/*"]
        assert await changes.find_key_digest(make_key().key_id) == DIGEST
        assert [key.key_id for key in await changes.list_keys(acme.tenant_id)] == [make_key().key_id]
        await changes.delete_rule(rule.pattern)
        await changes.delete_key(make_key().key_id)
        assert await changes.list_rules() == []
        assert await changes.find_key_digest(make_key().key_id) is None

    await change(store, work)
    assert await store.members(names.PATTERNS) == []
    assert await store.members(names.tenant_keys(acme.tenant_id)) == []


async def test_what_raises_changes_nothing(store, listing, acme):
    async def work(changes):
        await changes.put_tenant(acme)
        raise Conflict("no")

    with pytest.raises(Conflict):
        await change(store, work)
    assert await listing.find_tenant(acme.tenant_id) is None
    assert await store.generation() == 0


async def test_work_that_changes_nothing_moves_no_generation(store, acme):
    async def work(changes):
        return await changes.find_tenant(acme.tenant_id)

    assert await change(store, work) == (None, Moment())


async def test_a_deleted_fact_is_gone_from_its_index(store, listing, acme):
    alias = Alias(alias=ModelId("x"), canonical=ModelId("y"))

    async def fill(changes):
        await changes.put_tenant(acme)
        await changes.put_rule(ModelRule(pattern=Pattern("a"), owner=acme.tenant_id))
        await changes.put_alias(alias)

    async def empty(changes):
        await changes.delete_tenant(acme.tenant_id)
        await changes.put_rule(ModelRule(pattern=Pattern("a")))  # the rule is empty now
        await changes.delete_alias(alias.alias)

    await change(store, fill)
    await change(store, empty)
    for index in (names.TENANTS, names.PATTERNS, names.ALIASES):
        assert await store.members(index) == []
    left = await store._client.execute_command("KEYS", names.FACTS + b"*")
    assert [name for name in left if not name.startswith(STEPS)] == []


async def test_a_tenant_with_keys_is_not_deleted(store, acme, make_key):
    async def fill(changes):
        await changes.put_tenant(acme)
        await changes.put_key(make_key(), DIGEST)

    await change(store, fill)
    with pytest.raises(Conflict, match="has keys"):
        await change(store, lambda changes: changes.delete_tenant(acme.tenant_id))


async def test_a_key_that_is_not_there_is_not_deleted(store, make_key):
    with pytest.raises(Conflict, match="no key"):
        await change(store, lambda changes: changes.delete_key(make_key().key_id))


async def test_the_texts_of_the_policy_before_are_dropped(store, listing, policy):
    for schema in ("entity A;", "entity B;", "entity B;"):
        await change(store, lambda changes, schema=schema: changes.put_policy(replace(policy, schema=schema)))
    texts = await store._client.execute_command("KEYS", names.policy_text(b"\0" * 32)[:-43] + b"*")
    assert len(texts) == 1
    assert (await listing.find_policy()).schema == "entity B;"


async def test_a_policy_put_over_a_malformed_head_repairs_it(store, listing, corrupt, policy):
    await corrupt(names.POLICY)
    await change(store, lambda changes: changes.put_policy(policy))
    assert (await listing.find_policy()).schema == policy.schema


async def test_a_change_that_has_to_read_a_malformed_record_is_refused(store, corrupt, acme, run):
    await change(store, lambda changes: changes.put_tenant(acme))
    await corrupt(names.grants_fact(acme.tenant_id))
    with pytest.raises(Conflict, match="does not parse"):
        await run(add_grants, tenant_id=acme.tenant_id, models=[Pattern("a")], actions=["read"])


async def test_a_hundred_grants_added_at_once_are_a_hundred_grants(store, listing, valkey_url, acme):
    await change(store, lambda changes: changes.put_tenant(acme))
    stores = [store, *(RedisStore(valkey_url) for _ in range(3))]  # one store per process

    async def add(number):
        return await change(
            stores[number % len(stores)],
            lambda changes: add_grants(
                changes, tenant_id=acme.tenant_id, models=[Pattern(f"globex/m/{number}")], actions=["read"]
            ),
        )

    results = await asyncio.gather(*(add(number) for number in range(100)))
    for extra in stores[1:]:
        await extra.close()
    grants = await listing.list_grants(acme.tenant_id)
    assert len(grants) == len({grant.grant_id for grant in grants}) == 100
    assert sorted(moment.generation for _, moment in results) == list(range(2, 102))
    assert await store.generation() == 101


async def test_two_changes_of_one_fact_at_once_both_land(store, listing, valkey_url, acme):
    other = RedisStore(valkey_url)
    await change(store, lambda changes: changes.put_rule(ModelRule(pattern=Pattern("a"), groups=("g",))))
    both_read = asyncio.Barrier(2)
    attempts = []

    def edit(**fields):
        async def work(changes):
            rule = await changes.find_rule(Pattern("a"))
            attempts.append(fields)
            if len(attempts) <= 2:
                await both_read.wait()
            await changes.put_rule(replace(rule, **fields))

        return work

    await asyncio.gather(
        change(store, edit(owner=acme.tenant_id)), change(other, edit(visibility=Visibility.PUBLIC))
    )
    await other.close()
    rule = await listing.find_rule(Pattern("a"))
    assert (rule.owner, rule.visibility, rule.groups) == ("acme", Visibility.PUBLIC, ("g",))
    assert len(attempts) == 3
    assert rule.generation == 3


def many_grants(count, names=1):
    grants = [
        Grant(
            grant_id=f"grt_{number}",
            actions=frozenset({"read"}),
            models=tuple(Pattern(f"globex/{number}/{one}") for one in range(names)),
        )
        for number in range(count)
    ]
    return Grants(tenant_id=TenantId("acme"), grants=tuple(grants))


@pytest.mark.parametrize(("count", "names"), [(MAX_GRANTS + 1, 1), (1, MAX_GRANTED_NAMES + 1)])
async def test_no_tenant_has_more_grants_than_a_worker_reads_in_time(store, listing, acme, count, names):
    await change(store, lambda changes: changes.put_grants(many_grants(3)))
    with pytest.raises(Conflict, match="prefix"):
        await change(store, lambda changes: changes.put_grants(many_grants(count, names)))
    assert len(await listing.list_grants(acme.tenant_id)) == 3


async def test_the_most_grants_are_taken_and_too_many_can_become_fewer(store, listing, acme, monkeypatch):
    await change(store, lambda changes: changes.put_grants(many_grants(MAX_GRANTS)))
    monkeypatch.setattr(changes_module, "MAX_GRANTS", 10)  # as an earlier release could have left them
    await change(store, lambda changes: changes.put_grants(many_grants(MAX_GRANTS - 1)))
    with pytest.raises(Conflict):
        await change(store, lambda changes: changes.put_grants(many_grants(MAX_GRANTS)))
    assert len(await listing.list_grants(acme.tenant_id)) == MAX_GRANTS - 1


async def test_a_pattern_is_in_so_many_groups_at_most(store, listing):
    groups = tuple(GroupName(f"g{number}") for number in range(MAX_GROUPS_OF_PATTERN + 1))
    pattern = Pattern("acme/*")
    await change(store, lambda changes: changes.put_rule(ModelRule(pattern=pattern, groups=groups[1:])))
    with pytest.raises(Conflict, match="groups"):
        await change(store, lambda changes: changes.put_rule(ModelRule(pattern=pattern, groups=groups)))
    assert (await listing.find_rule(pattern)).groups == groups[1:]


async def test_no_grants_at_all_take_the_record_away(store, acme):
    await change(store, lambda changes: changes.put_grants(Grants(tenant_id=TenantId("acme"), grants=())))
    assert (await store.read([names.grants_fact(acme.tenant_id)]))[1] == [None]
