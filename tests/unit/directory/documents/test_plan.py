from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.directory.documents.parse import TenantDocument
from gateway.directory.documents.plan import (
    CurrentFacts,
    DocumentPlan,
    Order,
    PlannedChange,
    Removed,
    apply_plan,
    grant_changes,
    plan_changes,
)
from gateway.directory.edits.changes import Changes
from gateway.model.errors import Conflict
from gateway.model.facts import Alias, Grant, Grants, ModelRule, PolicySet, Tenant, Visibility

NOW = 1_700_000_000.0
READ = frozenset({"read"})


def document(tenant="acme", **said) -> TenantDocument:
    return TenantDocument(
        **{
            "where": f"{tenant}.toml:1",
            "tenant_id": tenant,
            "name": tenant.title(),
            "is_suspended": False,
            **said,
        }
    )


def grant(*models: str, tenant="acme", **said) -> Grant:
    source = said.pop("source", f"policies:{tenant}")
    return Grant(grant_id=f"doc_{'_'.join(models)}", actions=READ, models=models, source=source, **said)


FULL = document(
    own=("acme/*",),
    public=("acme/demo/*",),
    private=("acme/demo/2",),
    aliases={"acme/latest": "acme/cars/1"},
    groups={"vision": ("acme/*", "acme/signs")},
    grants=(grant("globex/x"), grant("globex/y", packages=("p1",))),
)


NOTHING = CurrentFacts()
ACME = Tenant(
    tenant_id="acme", name="Acme", is_suspended=False, created_at=1.0, record_id=None, source="policies:acme"
)


class Store:
    """An in-memory writer: applies a plan's changes and returns the result."""

    def __init__(self, facts: CurrentFacts) -> None:
        self.tenants = {each.tenant_id: each for each in facts.tenants}
        self.rules = {each.pattern: each for each in facts.rules}
        self.aliases = {each.alias: each for each in facts.aliases}
        self.grants = {each.tenant_id: each for each in facts.grants}
        self.policy, self.with_keys, self.generation = facts.policy, facts.tenants_with_keys, 100
        self.calls: list[str] = []

    put = Changes.put

    def _next(self, name: str) -> int:
        self.calls.append(name)
        self.generation += 1
        return self.generation

    async def put_policy(self, policy):
        self.policy = replace(policy, generation=self._next("put_policy"))

    async def put_tenant(self, tenant):
        self.tenants[tenant.tenant_id] = replace(tenant, generation=self._next("put_tenant"))

    async def delete_tenant(self, tenant_id):
        self._next("delete_tenant")
        del self.tenants[tenant_id]

    async def put_rule(self, rule):
        self.rules[rule.pattern] = replace(rule, generation=self._next("put_rule"))

    async def delete_rule(self, pattern):
        self._next("delete_rule")
        del self.rules[pattern]

    async def put_alias(self, alias):
        self.aliases[alias.alias] = replace(alias, generation=self._next("put_alias"))

    async def delete_alias(self, alias):
        self._next("delete_alias")
        del self.aliases[alias]

    async def put_grants(self, grants):
        self.grants[grants.tenant_id] = replace(grants, generation=self._next("put_grants"))

    def facts(self) -> CurrentFacts:
        return CurrentFacts(
            tenants=tuple(self.tenants.values()),
            rules=tuple(self.rules.values()),
            aliases=tuple(self.aliases.values()),
            grants=tuple(self.grants.values()),
            policy=self.policy,
            tenants_with_keys=self.with_keys,
        )


def applied(plan: DocumentPlan, facts: CurrentFacts) -> CurrentFacts:
    store = Store(facts)
    asyncio.run(apply_plan(store, plan))
    return store.facts()


def after(*documents: TenantDocument, facts: CurrentFacts = NOTHING) -> CurrentFacts:
    return applied(plan_changes(documents, facts, now=NOW), facts)


def test_a_first_plan_says_everything_that_the_document_says():
    plan = plan_changes([FULL], CurrentFacts(), now=NOW)
    assert set(plan.lines) == {
        "+ tenant acme: Acme",
        "+ models acme/*: owner acme, groups vision",
        "+ models acme/demo/*: public",
        "+ models acme/demo/2: private",
        "+ models acme/signs: groups vision",
        "+ alias acme/latest: acme/cars/1",
        "+ grant acme: read globex/x",
        "+ grant acme: read globex/y packages p1",
    }
    facts = applied(plan, CurrentFacts())
    assert facts.tenants[0].created_at == NOW
    assert {rule.source for rule in facts.rules} == {"policies:acme"}


CHANGED = replace(
    FULL,
    name="Acme Corp",
    public=(),
    private=("acme/demo/3",),
    aliases={"acme/latest": "acme/cars/2", "acme/new": "acme/cars/1"},
    groups={},
    grants=(grant("globex/y", packages=("p1",)), grant("globex/z")),
)


@pytest.mark.parametrize(
    "documents",
    [[], [FULL], [CHANGED], [CHANGED, document("globex", own=("acme/signs",))], [document("initech")]],
)
@pytest.mark.parametrize("with_keys", [frozenset(), frozenset({"acme"})])
def test_planning_against_the_result_finds_nothing_to_do(documents, with_keys):
    facts = replace(after(FULL), tenants_with_keys=with_keys)
    plan = plan_changes(documents, facts, now=NOW)
    assert plan_changes(documents, applied(plan, facts), now=NOW + 1).is_empty


def test_changes_say_what_was():
    lines = plan_changes([CHANGED], after(FULL), now=NOW).lines
    assert "~ tenant acme: Acme Corp (was Acme)" in lines
    assert "~ models acme/*: owner acme (was owner acme, groups vision)" in lines
    assert "~ alias acme/latest: acme/cars/2 (was acme/cars/1)" in lines
    assert "- models acme/demo/*: public" in lines
    assert "- grant acme: read globex/x" in lines
    assert "+ grant acme: read globex/z" in lines


def test_what_closes_comes_before_what_opens():
    lines = plan_changes(
        [CHANGED, document("evil", is_suspended=True)], after(FULL, document("evil")), now=NOW
    ).lines
    order = [
        "~ tenant evil: Evil, suspended (was Evil)",
        "- grant acme: read globex/x",
        "- models acme/demo/*: public",
        "- models acme/demo/2: private",
        "+ alias acme/new: acme/cars/1",
        "+ grant acme: read globex/z",
    ]
    assert [line for line in lines if line in order] == order


def test_a_tenant_without_document_goes_with_everything_its_document_said():
    facts = after(FULL)
    result = after(facts=facts)
    assert (result.tenants, result.rules, result.aliases) == ((), (), ())
    assert result.grants[0].grants == ()


def test_a_degraded_time_is_said_in_the_plan_and_planned_once():
    lasting = document(degraded_seconds=60.0)
    result = after(lasting)
    assert result.tenants[0].degraded_seconds == 60.0
    assert plan_changes([lasting], result, now=NOW).is_empty
    assert plan_changes([document()], result, now=NOW).lines == (
        "~ tenant acme: Acme (was Acme, last-known-good for 60 s)",
    )


def test_hosts_of_images_are_said_in_the_plan_and_planned_once():
    hosted = document(image_hosts=("a.example", "http://b.example"))
    result = after(hosted)
    assert result.tenants[0].image_hosts == ("a.example", "http://b.example")
    assert plan_changes([hosted], result, now=NOW).is_empty
    assert plan_changes([document()], result, now=NOW).lines == (
        "~ tenant acme: Acme (was Acme, images from a.example http://b.example)",
    )


def test_what_workflows_may_do_is_said_in_the_plan_and_planned_once():
    allowed = document(allows=("cache-read", "external-request"))
    result = after(allowed)
    assert result.tenants[0].allows == ("cache-read", "external-request")
    assert plan_changes([allowed], result, now=NOW).is_empty
    assert plan_changes([document()], result, now=NOW).lines == (
        "~ tenant acme: Acme (was Acme, workflows may cache-read external-request)",
    )


def test_a_tenant_that_a_command_suspended_is_a_conflict_and_stays_suspended():
    by_hand = replace(after(document()).tenants[0], is_suspended=True, source="cli")
    plan = plan_changes([document()], CurrentFacts(tenants=(by_hand,)), now=NOW)
    assert plan.changes == ()
    assert len(plan.conflicts) == 1


def test_a_tenant_with_keys_is_suspended_and_not_deleted():
    result = after(facts=replace(after(FULL), tenants_with_keys=frozenset({"acme"})))
    assert [(tenant.tenant_id, tenant.is_suspended) for tenant in result.tenants] == [("acme", True)]
    assert result.rules == ()
    assert after(FULL, facts=result).tenants[0].is_suspended is False


def test_a_tenant_with_grants_of_another_source_is_suspended_and_keeps_them():
    mine = grant("other/*", source="cli")
    facts = after(FULL)
    record_id = facts.tenants[0].record_id
    held = Grants(tenant_id="acme", tenant_record=record_id, grants=(mine, *FULL.grants))
    facts = replace(facts, grants=(held,))
    result = after(facts=facts)
    assert result.tenants[0].is_suspended
    assert result.grants[0].grants == (mine,)


FOREIGN = CurrentFacts(
    tenants=(Tenant(tenant_id="cli", name="By hand", is_suspended=False, created_at=1.0),),
    rules=(ModelRule(pattern="cli/*", owner="cli", visibility=Visibility.PUBLIC),),
    aliases=(Alias(alias="cli/latest", canonical="cli/1"),),
    grants=(Grants(tenant_id="cli", grants=(grant("acme/*", source="cli"),)),),
)


def test_facts_of_other_sources_are_left_alone():
    assert plan_changes([], FOREIGN, now=NOW).is_empty
    result = after(FULL, facts=FOREIGN)
    for before, now in (
        (FOREIGN.tenants, result.tenants),
        (FOREIGN.rules, result.rules),
        (FOREIGN.aliases, result.aliases),
        (FOREIGN.grants, result.grants),
    ):
        assert set(before) <= set(now)


def test_the_same_value_from_another_source_is_no_conflict_and_stays_theirs():
    same = document(
        "cli",
        name="By hand",
        own=("cli/*",),
        public=("cli/*",),
        aliases={"cli/latest": "cli/1"},
    )
    assert plan_changes([same], FOREIGN, now=NOW).is_empty


@pytest.mark.parametrize(
    "clash",
    [
        document("cli", name="Another"),
        document("cli", name="By hand", is_suspended=True),
        document(own=("cli/*",)),
        document(private=("cli/*",)),
        document(aliases={"cli/latest": "cli/2"}),
        document(aliases={"acme/x": "cli/latest"}),
        document(aliases={"cli/1": "acme/y"}),
    ],
)
def test_a_fact_of_another_source_with_another_value_stops_the_plan(clash):
    plan = plan_changes([clash], FOREIGN, now=NOW)
    assert len(plan.conflicts) == 1
    assert not plan.is_empty
    store = Store(FOREIGN)
    with pytest.raises(Conflict):
        asyncio.run(apply_plan(store, plan))
    assert store.calls == []


def test_grants_of_other_sources_stay_beside_the_folders():
    mine = grant("by/hand", source="cli")
    facts = CurrentFacts(tenants=(ACME,), grants=(Grants(tenant_id="acme", grants=(mine,)),))
    result = after(FULL, facts=facts)
    assert result.grants[0].grants == (mine, *FULL.grants)
    assert after(replace(FULL, grants=()), facts=result).grants[0].grants == (mine,)


def test_a_pattern_that_moves_to_another_document_changes_hands_in_one_step():
    plan = plan_changes(
        [document(), document("globex", own=("acme/*",))], after(document(own=("acme/*",))), now=NOW
    )
    moved = [line for line in plan.lines if "models" in line]
    assert moved == ["~ models acme/*: owner globex (was owner acme)"]


def test_the_rule_set_is_put_in_force_first_and_only_when_it_differs():
    rules = PolicySet(schema="", policies=(), digest="d1")
    plan = plan_changes([FULL], CurrentFacts(), now=NOW, policy=rules)
    assert plan.changes[0].fact == rules
    result = applied(plan, CurrentFacts())
    assert plan_changes([FULL], result, now=NOW, policy=rules).is_empty
    newer = replace(rules, digest="d2")
    assert plan_changes([FULL], result, now=NOW, policy=newer).lines == ("~ policy: d2, 0 files (was d1)",)


def test_a_plan_is_empty_only_with_nothing_to_do_and_nothing_in_the_way():
    change = PlannedChange(order=Order.DROP_ALIAS, fact=Removed(Alias, "a"), lines=("- alias a: b", "note"))
    assert DocumentPlan(changes=()).is_empty
    assert not DocumentPlan(changes=(change,)).is_empty
    assert not DocumentPlan(changes=(), conflicts=("two sources",)).is_empty
    assert DocumentPlan(changes=(change, change)).lines == ("- alias a: b", "note") * 2


def test_closing_sorts_before_opening():
    closing = {Order.SUSPEND, Order.LOSE_GRANTS, Order.DROP_ALIAS, Order.CLOSE_MODELS}
    opening = {Order.ADMIT_TENANT, Order.PUT_MODELS, Order.FORGET_MODELS, Order.PUT_ALIAS, Order.GAIN_GRANTS}
    assert max(closing) < min(opening)


def test_a_record_that_loses_and_gains_is_written_twice_the_loss_first():
    kept, lost, gained = grant("kept"), grant("lost"), grant("gained")
    current = CurrentFacts(tenants=(ACME,), grants=(Grants(tenant_id="acme", grants=(lost, kept)),))
    first, second = grant_changes((document(grants=(gained, kept)),), current)
    assert (first.order, first.fact.grants) == (Order.LOSE_GRANTS, (kept,))
    assert (second.order, second.fact.grants) == (Order.GAIN_GRANTS, (kept, gained))


class TestRecordIds:
    def test_a_new_tenant_gets_an_id_which_its_facts_carry(self):
        result = after(FULL)
        [tenant] = result.tenants
        assert tenant.record_id.startswith("ten_")
        assert {one.tenant_record for one in result.grants} == {tenant.record_id}
        assert {rule.owner_record for rule in result.rules if rule.owner} == {tenant.record_id}
        assert plan_changes([FULL], result, now=NOW + 1).is_empty

    def test_the_plan_that_is_shown_is_the_one_that_is_applied(self):
        assert plan_changes([FULL], NOTHING, now=NOW) == plan_changes([FULL], NOTHING, now=NOW)

    def test_a_tenant_from_before_the_ids_keeps_what_it_has(self):
        old = replace(ACME, name=FULL.name)
        result = after(FULL, facts=CurrentFacts(tenants=(old,)))
        assert result.tenants[0].record_id is None
        assert {one.tenant_record for one in result.grants} == {None}

    def test_grants_of_an_earlier_tenant_of_the_name_are_not_its_own(self):
        left = Grants(
            tenant_id="acme", tenant_record="ten_00000000000A", grants=(grant("old/*", source="cli"),)
        )
        facts = CurrentFacts(tenants=(replace(ACME, record_id="ten_00000000000B"),), grants=(left,))
        [held] = after(FULL, facts=facts).grants
        assert (held.tenant_record, held.grants) == ("ten_00000000000B", FULL.grants)

    def test_a_tenant_that_is_being_removed_is_in_the_way(self):
        removing = replace(ACME, removal="rem_1", is_suspended=True)
        plan = plan_changes([FULL], CurrentFacts(tenants=(removing,)), now=NOW)
        assert "being removed" in plan.conflicts[0]
