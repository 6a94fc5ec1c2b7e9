from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.directory.edits.changes import change
from gateway.directory.edits.models import (
    add_alias,
    add_to_group,
    disown,
    move,
    own,
    publish,
    remove_alias,
    remove_from_group,
    unpublish,
)
from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.model.errors import Conflict
from gateway.model.facts import ModelRule, Visibility
from gateway.model.names import GroupName, ModelId, Pattern, TenantId

pytestmark = pytest.mark.anyio

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


@pytest.fixture
async def tenants(store, acme):
    for tenant_id in (ACME, GLOBEX):
        tenant = replace(acme, tenant_id=tenant_id)
        await change(store, lambda changes, tenant=tenant: changes.put_tenant(tenant))


@pytest.fixture
def rules(store):
    async def read():
        return {rule.pattern: rule for rule in await Listing(PlainFacts(store)).list_rules()}

    return read


def patterns(*texts: str) -> list[Pattern]:
    return [Pattern(text) for text in texts]


async def test_a_tenant_owns_what_it_was_given_and_twice_is_once(tenants, run, rules):
    assert (await run(own, tenant_id=ACME, patterns=patterns("a/*", "b"))).is_changed
    assert not (await run(own, tenant_id=ACME, patterns=patterns("a/*", "b"))).is_changed
    assert {pattern: rule.owner for pattern, rule in (await rules()).items()} == {"a/*": ACME, "b": ACME}


async def test_an_unknown_tenant_owns_nothing(run):
    with pytest.raises(Conflict, match="no tenant"):
        await run(own, tenant_id=ACME, patterns=patterns("a/*"))


@pytest.mark.parametrize("force", [False, True])
async def test_what_another_tenant_owns_by_name_is_never_taken(tenants, run, force):
    await run(own, tenant_id=ACME, patterns=patterns("a/*"))
    with pytest.raises(Conflict, match="belongs to tenant acme"):
        await run(own, tenant_id=GLOBEX, patterns=patterns("b", "a/*"), force=force)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a/*", "a/x"),
        ("a/*", "a/b/c"),
        ("a/*", "a/b/*"),
        ("a/b/*", "a/b/c/*"),
        ("a/x", "a/*"),
        ("a/b/*", "a/*"),
        ("a/b/c/1", "a/*"),
    ],
)
async def test_an_overlap_with_another_tenant_is_refused_unless_forced(tenants, run, rules, theirs, ours):
    await run(own, tenant_id=ACME, patterns=patterns(theirs))
    with pytest.raises(Conflict, match="--force"):
        await run(own, tenant_id=GLOBEX, patterns=patterns(ours))
    await run(own, tenant_id=GLOBEX, patterns=patterns(ours), force=True)
    assert (await rules())[ours].owner == GLOBEX


@pytest.mark.parametrize(
    ("theirs", "ours"), [("a/*", "a"), ("a", "a/*"), ("a/*", "ab/*"), ("a/b", "a/bc"), ("a/*", "b/a/*")]
)
async def test_neighbours_are_no_overlap(tenants, run, theirs, ours):
    await run(own, tenant_id=ACME, patterns=patterns(theirs))
    assert (await run(own, tenant_id=GLOBEX, patterns=patterns(ours))).is_changed


async def test_a_tenants_own_patterns_may_overlap(tenants, run):
    await run(own, tenant_id=ACME, patterns=patterns("a/*"))
    assert (await run(own, tenant_id=ACME, patterns=patterns("a/b/*", "a/x"))).is_changed


async def test_disowning_keeps_what_else_is_said_and_removes_an_empty_rule(tenants, run, rules):
    await run(own, tenant_id=ACME, patterns=patterns("a/*", "b"))
    await run(publish, patterns=patterns("b"))
    with pytest.raises(Conflict, match="not to globex"):
        await run(disown, tenant_id=GLOBEX, patterns=patterns("a/*"))
    await run(disown, tenant_id=ACME, patterns=patterns("a/*", "b"))
    assert {pattern: rule.visibility for pattern, rule in (await rules()).items()} == {"b": Visibility.PUBLIC}
    assert not (await run(disown, tenant_id=ACME, patterns=patterns("a/*"))).is_changed


async def test_unpublishing_makes_private_by_name(run, rules):
    await run(publish, patterns=patterns("a/*"))
    await run(unpublish, patterns=patterns("a/x"))
    assert {pattern: rule.visibility for pattern, rule in (await rules()).items()} == {
        "a/*": Visibility.PUBLIC,
        "a/x": Visibility.PRIVATE,
    }


async def test_a_pattern_joins_and_leaves_groups(run, rules):
    for group in ("z", "b", "b"):
        await run(add_to_group, group=GroupName(group), patterns=patterns("a/*"))
    assert (await rules())["a/*"].groups == ("b", "z")
    for group in ("z", "b"):
        assert (await run(remove_from_group, group=GroupName(group), patterns=patterns("a/*"))).is_changed
    assert await rules() == {}


async def test_a_rule_of_the_folder_is_changed_by_its_file_or_by_force(store, run, rules):
    rule = ModelRule(pattern=Pattern("a/*"), owner=ACME, source="policies:acme")
    await change(store, lambda changes: changes.put_rule(rule))
    with pytest.raises(Conflict, match=r"acme\.toml"):
        await run(publish, patterns=patterns("a/*"))
    await run(publish, patterns=patterns("a/*"), force=True)
    assert ((await rules())["a/*"].visibility, (await rules())["a/*"].source) == (Visibility.PUBLIC, "cli")


async def test_an_alias_is_given_moved_and_taken_away(store, run):
    alias = ModelId("a/latest")
    listing = Listing(PlainFacts(store))
    for target in ("a/1", "a/2"):
        assert (await run(add_alias, alias=alias, canonical=ModelId(target))).is_changed
        assert not (await run(add_alias, alias=alias, canonical=ModelId(target))).is_changed
        assert (await listing.find_alias(alias)).canonical == target
    assert (await run(remove_alias, alias=alias)).is_changed
    assert not (await run(remove_alias, alias=alias)).is_changed
    assert await listing.list_aliases() == []


@pytest.mark.parametrize(
    ("alias", "canonical", "why"),
    [
        ("x", "x", "itself"),
        ("x", "a/latest", "alias itself"),
        ("a/1", "a/2", "cannot be an alias too"),
        ("ruled", "a/2", "is a model"),
    ],
)
async def test_an_alias_that_would_make_a_chain_or_hide_a_model_is_refused(run, alias, canonical, why):
    await run(add_alias, alias=ModelId("a/latest"), canonical=ModelId("a/1"))
    await run(publish, patterns=patterns("ruled"))
    with pytest.raises(Conflict, match=why):
        await run(add_alias, alias=ModelId(alias), canonical=ModelId(canonical))


async def test_no_exact_rule_is_made_for_an_alias(run):
    await run(add_alias, alias=ModelId("a/latest"), canonical=ModelId("a/1"))
    with pytest.raises(Conflict, match="is an alias"):
        await run(publish, patterns=patterns("a/latest"))
    assert (await run(publish, patterns=patterns("a/latest/*"))).is_changed


class TestTimesOfPublication:
    async def test_a_publication_may_begin_and_end_and_be_moved(self, run, rules):
        pattern = Pattern("acme/x")
        await run(publish, patterns=[pattern], not_before=20.0, expires_at=30.0, now=10.0)
        rule = (await rules())[pattern]
        assert (rule.visibility, rule.not_before, rule.expires_at) == (Visibility.PUBLIC, 20.0, 30.0)
        await run(publish, patterns=[pattern], expires_at=40.0, now=10.0)
        rule = (await rules())[pattern]
        assert (rule.not_before, rule.expires_at) == (None, 40.0)
        assert not (await run(publish, patterns=[pattern], expires_at=40.0, now=10.0)).is_changed

    async def test_unpublishing_takes_the_times_away(self, run, rules):
        pattern = Pattern("acme/x")
        await run(publish, patterns=[pattern], expires_at=30.0, now=10.0)
        await run(unpublish, patterns=[pattern])
        assert not (await rules())[pattern].has_times

    async def test_an_expiry_that_has_passed_is_refused(self, run, rules):
        with pytest.raises(Conflict):
            await run(publish, patterns=[Pattern("acme/x")], expires_at=10.0, now=10.0)
        assert await rules() == {}


class TestMove:
    async def test_all_that_a_tenant_owns_changes_hands_in_one_change(self, tenants, run, rules, store):
        patterns = [Pattern("acme/*"), Pattern("acme/x")]
        await run(own, tenant_id=ACME, patterns=patterns)
        await run(publish, patterns=[patterns[1]])
        await run(own, tenant_id=GLOBEX, patterns=[Pattern("globex/*")])
        before = await store.generation()
        effect = await run(move, from_tenant=ACME, to_tenant=GLOBEX)
        assert effect.is_changed
        assert await store.generation() == before + 1
        found = await rules()
        assert {rule.owner for rule in found.values()} == {GLOBEX}
        assert found["acme/x"].visibility is Visibility.PUBLIC

    async def test_only_what_is_named_is_moved(self, tenants, run, rules):
        await run(own, tenant_id=ACME, patterns=[Pattern("acme/x"), Pattern("acme/y")])
        await run(move, from_tenant=ACME, to_tenant=GLOBEX, patterns=[Pattern("acme/y")])
        assert {name: rule.owner for name, rule in (await rules()).items()} == {
            "acme/x": ACME,
            "acme/y": GLOBEX,
        }

    async def test_nothing_is_moved_where_one_of_them_is_not_owned(self, tenants, run, rules):
        await run(own, tenant_id=ACME, patterns=[Pattern("acme/x")])
        effect = await run(
            move, from_tenant=ACME, to_tenant=GLOBEX, patterns=[Pattern("acme/x"), Pattern("b/y")]
        )
        assert (effect.is_changed, effect.missing) == (False, ("b/y",))
        assert (await rules())["acme/x"].owner == ACME

    async def test_more_than_one_change_may_hold_is_refused(self, tenants, run, store):
        async def work(changes):
            for number in range(2001):
                await changes.put_rule(ModelRule(pattern=Pattern(f"acme/{number}"), owner=ACME))

        await change(store, work)
        with pytest.raises(Conflict, match="at most 2000"):
            await run(move, from_tenant=ACME, to_tenant=GLOBEX)

    async def test_rules_of_the_folder_stay(self, tenants, run, store):
        rule = ModelRule(pattern=Pattern("acme/x"), owner=ACME, source="policies:acme")
        await change(store, lambda changes: changes.put_rule(rule))
        with pytest.raises(Conflict, match="policy folder"):
            await run(move, from_tenant=ACME, to_tenant=GLOBEX)

    async def test_a_pattern_of_an_earlier_tenant_of_the_name_is_not_the_tenants_to_give(
        self, tenants, run, store
    ):
        rule = ModelRule(pattern=Pattern("acme/x"), owner=ACME, owner_record="ten_00000000000A")
        await change(store, lambda changes: changes.put_rule(rule))
        effect = await run(move, from_tenant=ACME, to_tenant=GLOBEX)
        assert not effect.is_changed
