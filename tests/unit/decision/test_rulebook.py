from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.decision import Rulebook
from gateway.decision.rulebook import MAX_BATCH, MAX_GRANT_INDEXES, MAX_NAMED
from gateway.model.access import ALLOWABLE, Action, Resource, ResourceKind
from gateway.model.errors import Reason
from gateway.model.facts import Grant, KeyKind, Scope, Standing, Visibility
from gateway.model.periods import PeriodState
from gateway.model.verdicts import Allowed, Denied

OWN = Standing(owner="globex", visibility=Visibility.PRIVATE, groups=frozenset())
OTHERS = Standing(owner="acme", visibility=Visibility.PRIVATE, groups=frozenset())
PUBLIC = Standing(owner="acme", visibility=Visibility.PUBLIC, groups=frozenset())

# `1 + resource.…` would not validate; an optional attribute read without asking does not either, but a
# record in Redis may contain a set that was never validated.
BROKEN_FORBID = '@id("broken") forbid (principal, action, resource) when { resource.owner == Tenant::"x" };'
# This one does validate: integers overflow at run time only.
OVERFLOWING_FORBID = """@id("overflows") forbid (principal, action == Action::"read", resource)
when { 9223372036854775807 + 1 > 0 };"""


class TestWhatAnAllowSays:
    def test_of_very_many_rules_and_grants_it_names_the_first(self, asker):
        many = MAX_NAMED + 5
        rule = '@via("grant") permit (principal, action, resource);'
        policy = asker.rules("".join(f'@id("r{number}") {rule}' for number in range(many)))
        grants = tuple(
            Grant(grant_id=f"g{number}", actions=frozenset({"read"}), models=("acme/*",))
            for number in range(many)
        )
        verdict = asker.rulebook.decide(asker.access(), asker.facts(policy=policy, grants=grants))
        assert verdict.policies == (*(f"r{number}" for number in range(MAX_NAMED)), "5 more")
        assert len(verdict.grant.split(",")) == MAX_NAMED

    def test_it_names_the_determining_policies_the_model_and_the_stamp(self, asker):
        facts = asker.facts(model_standing=OWN, requested_standing=OWN)
        verdict = asker.rulebook.decide(asker.access(), facts)
        assert isinstance(verdict, Allowed)
        assert verdict.policies == ("owner-uses-its-models",)
        assert (verdict.model, verdict.grant, verdict.stamp) == ("acme/cars/1", "owner", facts.stamp)

    def test_it_names_every_grant_that_matched(self, asker):
        grants = (
            Grant(grant_id="wide", actions=frozenset({"read"}), models=("acme/*",)),
            Grant(grant_id="exact", actions=frozenset({"read"}), models=("acme/cars/1",)),
            Grant(grant_id="other", actions=frozenset({"read"}), models=("acme/boats/*",)),
            Grant(grant_id="infer", actions=frozenset({"infer"}), models=("acme/*",)),
        )
        verdict = asker.rulebook.decide(asker.access(), asker.facts(grants=grants))
        assert isinstance(verdict, Allowed)
        assert verdict.grant == "exact,wide"

    def test_a_policy_of_the_operators_own_gives_no_ground_but_its_name(self, asker):
        mine = asker.shipped_and('@id("mine") permit (principal is ApiKey, action, resource is Model);')
        verdict = asker.rulebook.decide(asker.access(), asker.facts(policy=mine))
        assert isinstance(verdict, Allowed)
        assert (verdict.policies, verdict.grant) == (("mine",), None)

    def test_a_file_is_decided_as_its_package(self, asker):
        grant = Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/*",), packages=("p1",))
        for package, expected in (("p1", Allowed), ("p2", Denied)):
            resource = Resource(kind=ResourceKind.FILE, model="acme/cars/1", package=package, file="w.onnx")
            verdict = asker.rulebook.decide(asker.access(resource=resource), asker.facts(grants=(grant,)))
            assert isinstance(verdict, expected)


class TestDefaultDeny:
    def test_no_rule_denies(self, asker):
        verdict = asker.rulebook.decide(asker.access(), asker.facts())
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.NOT_PERMITTED, False)

    @pytest.mark.parametrize("texts", [(), ("",), ("// nothing but words",)])
    def test_an_empty_policy_set_denies(self, asker, texts):
        facts = asker.facts(policy=asker.rules(*texts), model_standing=PUBLIC)
        verdict = asker.rulebook.decide(asker.access(), facts)
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.NOT_PERMITTED

    @pytest.mark.parametrize(
        "text",
        [
            "permit (",
            "permit (principal, action, resource) when { nothing };",
            "permit (principal == ?principal, action, resource);",
            "permit (principal, action, resource); }",
        ],
    )
    def test_a_set_that_does_not_parse_denies(self, asker, text):
        verdict = asker.rulebook.decide(asker.access(), asker.facts(policy=asker.shipped_and(text)))
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.POLICY_ERROR, False)

    def test_files_that_parse_only_together_deny(self, asker):
        policy = asker.rules("permit (principal, action,", "resource);")
        verdict = asker.rulebook.decide(asker.access(), asker.facts(policy=policy))
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.POLICY_ERROR

    @pytest.mark.parametrize("schema", ["", "entity Tenant;", "not a schema"])
    def test_a_schema_that_does_not_fit_what_is_asked_denies(self, asker, schema):
        policy = replace(asker.shipped, schema=schema)
        verdict = asker.rulebook.decide(asker.access(), asker.facts(policy=policy, model_standing=PUBLIC))
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.POLICY_ERROR

    @pytest.mark.parametrize("forbid", [BROKEN_FORBID, OVERFLOWING_FORBID])
    def test_a_forbid_that_fails_to_evaluate_denies_and_is_named(self, asker, forbid):
        facts = asker.facts(
            policy=asker.shipped_and(forbid),
            model_standing=replace(PUBLIC, owner=None),
            requested_standing=replace(PUBLIC, owner=None),
        )
        verdict = asker.rulebook.decide(asker.access(), facts)
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.POLICY_ERROR
        assert verdict.policies in {("broken",), ("overflows",)}
        assert not verdict.may_discover

    def test_a_rule_that_fails_only_while_asking_for_discover_denies_too(self, asker):
        failing = OVERFLOWING_FORBID.replace('"read"', '"discover"')
        facts = asker.facts(policy=asker.shipped_and(failing), model_standing=PUBLIC)
        verdict = asker.rulebook.decide(asker.access(), facts)
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.POLICY_ERROR

    def test_a_fact_that_cannot_be_read_denies_whatever_it_is_about(self, asker):
        for resource in (None, Resource(kind=ResourceKind.SELF), Resource(kind=ResourceKind.CATALOGUE)):
            access = asker.access() if resource is None else asker.access(resource=resource)
            facts = asker.facts(model_standing=OWN, requested_standing=OWN, unreadable=("f:g:globex",))
            verdict = asker.rulebook.decide(access, facts)
            assert isinstance(verdict, Denied)
            assert (verdict.reason, verdict.may_discover) == (Reason.UNREADABLE_FACT, False)

    @pytest.mark.parametrize(
        "missing",
        [
            {"model_standing": None},
            {"model": None, "model_standing": None},
            {"requested": "acme/latest", "requested_standing": None},
        ],
    )
    def test_facts_that_are_missing_deny(self, asker, missing):
        everything = asker.rules('@id("all") permit (principal, action, resource);')
        access = asker.access(model=missing.get("requested", "acme/cars/1"))
        facts = replace(asker.facts(policy=everything), **missing)
        verdict = asker.rulebook.decide(access, facts)
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.UNREADABLE_FACT

    def test_an_action_that_does_not_belong_to_the_resource_denies(self, asker):
        everything = asker.rules('@id("all") permit (principal, action, resource);')
        verdict = asker.rulebook.decide(asker.access(action=Action.IDENTIFY), asker.facts(policy=everything))
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.NOT_PERMITTED
        access = asker.access(resource=Resource(kind=ResourceKind.CATALOGUE), action=Action.READ)
        verdict = asker.rulebook.decide(access, asker.facts(policy=everything))
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.MISSING_ACTION

    def test_one_digest_never_stands_for_two_sets(self, asker):
        everything = asker.rules('@id("all") permit (principal, action, resource);')
        nothing = replace(asker.rules(), digest=everything.digest)
        assert isinstance(asker.rulebook.decide(asker.access(), asker.facts(policy=everything)), Allowed)
        assert isinstance(asker.rulebook.decide(asker.access(), asker.facts(policy=nothing)), Denied)


class TestReasons:
    def test_a_missing_scope_is_told_only_to_those_who_may_discover(self, asker):
        access = asker.access(scopes={Scope.DISCOVER})
        known = asker.rulebook.decide(access, asker.facts(model_standing=PUBLIC))
        unknown = asker.rulebook.decide(access, asker.facts())
        assert isinstance(known, Denied)
        assert isinstance(unknown, Denied)
        assert (known.reason, known.may_discover) == (Reason.MISSING_SCOPE, True)
        assert (unknown.reason, unknown.may_discover) == (Reason.NOT_PERMITTED, False)
        assert known.policies == ("scope-caps-read",)

    def test_a_missing_action_is_told_to_those_who_may_discover(self, asker):
        grant = Grant(grant_id="g", actions=frozenset({"discover"}), models=("acme/*",))
        verdict = asker.rulebook.decide(asker.access(), asker.facts(grants=(grant,)))
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.MISSING_ACTION, True)

    def test_a_refused_discover_is_never_discoverable(self, asker):
        verdict = asker.rulebook.decide(asker.access(action=Action.DISCOVER), asker.facts())
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.NOT_PERMITTED, False)

    def test_an_admin_key_lacks_the_scope_for_the_catalogue(self, asker):
        access = asker.access(
            kind=KeyKind.ADMIN,
            tenant=None,
            scopes=frozenset(Scope),
            action=Action.DISCOVER,
            resource=Resource(kind=ResourceKind.CATALOGUE),
        )
        verdict = asker.rulebook.decide(access, asker.facts(model=None, requested=None, model_standing=None))
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.MISSING_SCOPE, True)

    def test_an_admin_key_reads_nothing_even_under_a_rule_that_permits_everything(self, asker):
        policy = asker.shipped_and('@id("all") permit (principal, action, resource);')
        access = asker.access(kind=KeyKind.ADMIN, tenant=None, scopes=frozenset(Scope))
        verdict = asker.rulebook.decide(access, asker.facts(policy=policy))
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.NOT_PERMITTED, False)

    def test_a_forbidden_model_is_hidden_from_its_owner(self, asker):
        policy = asker.shipped_and(
            '@id("hold") forbid (principal, action, resource in ModelGroup::"pattern:acme/cars/*");'
        )
        facts = asker.facts(policy=policy, model_standing=OWN, requested_standing=OWN)
        for package in (None, "p1"):
            verdict = asker.rulebook.decide(asker.access(package=package), facts)
            assert isinstance(verdict, Denied)
            assert (verdict.reason, verdict.policies) == (Reason.NOT_PERMITTED, ("hold",))


class TestAliases:
    def test_a_rule_that_forbids_the_alias_by_name_is_honoured(self, asker):
        policy = asker.shipped_and(
            '@id("no-alias") forbid (principal, action, resource == Model::"acme/latest");'
        )
        facts = asker.facts(policy=policy, model_standing=OWN)
        assert isinstance(asker.rulebook.decide(asker.access(), facts), Allowed)
        by_alias = replace(facts, requested="acme/latest")
        verdict = asker.rulebook.decide(asker.access(model="acme/latest"), by_alias)
        assert isinstance(verdict, Denied)
        assert verdict.policies == ("no-alias",)

    def test_a_rule_that_forbids_the_model_forbids_it_by_every_alias(self, asker):
        policy = asker.shipped_and('@id("no") forbid (principal, action, resource == Model::"acme/cars/1");')
        facts = asker.facts(policy=policy, model_standing=OWN, requested="acme/latest")
        assert isinstance(asker.rulebook.decide(asker.access(model="acme/latest"), facts), Denied)

    def test_an_alias_with_a_private_owner_of_its_own_needs_a_right_of_its_own(self, asker):
        facts = asker.facts(
            requested="hidden/latest",
            requested_standing=Standing(owner="initech", visibility=Visibility.PRIVATE, groups=frozenset()),
            model_standing=PUBLIC,
        )
        verdict = asker.rulebook.decide(asker.access(model="hidden/latest"), facts)
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.model) == (Reason.NOT_PERMITTED, "acme/cars/1")

    def test_a_grant_on_the_alias_alone_opens_nothing(self, asker):
        grant = Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/latest",))
        facts = asker.facts(requested="acme/latest", grants=(grant,), model_standing=OTHERS)
        assert isinstance(asker.rulebook.decide(asker.access(model="acme/latest"), facts), Denied)


class TestMany:
    def test_many_at_once_say_what_each_says_alone(self, asker):
        accesses, facts = [], []
        grants = (Grant(grant_id="g", actions=frozenset({"discover"}), models=("acme/3/*",)),)
        for number in range(2 * MAX_BATCH + 1):
            model = f"acme/{number % 7}/{number}"
            accesses.append(asker.access(model=model, action=Action.DISCOVER))
            standing = PUBLIC if number % 5 == 0 else OTHERS
            facts.append(
                asker.facts(model=model, model_standing=standing, requested_standing=standing, grants=grants)
            )
        alone = [Rulebook().decide(access, about) for access, about in zip(accesses, facts, strict=True)]
        assert asker.rulebook.decide_many(accesses, facts) == alone
        assert {type(verdict) for verdict in alone} == {Allowed, Denied}

    def test_callers_models_and_rules_may_change_from_one_question_to_the_next(self, asker):
        everything = asker.rules('@id("all") permit (principal, action, resource);')
        grant = (Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/*",)),)
        accesses = [
            asker.access(),
            asker.access(tenant="acme"),
            asker.access(),
            asker.access(model="acme/latest"),
            asker.access(model="acme/latest"),
            asker.access(),
        ]
        facts = [
            asker.facts(grants=grant),
            asker.facts(model_standing=OTHERS),
            asker.facts(policy=everything),
            asker.facts(requested="acme/latest", model_standing=OTHERS),
            asker.facts(model="acme/latest", model_standing=PUBLIC),
            asker.facts(unreadable=("x",)),
        ]
        kinds = [type(verdict) for verdict in asker.rulebook.decide_many(accesses, facts)]
        assert kinds == [Allowed, Allowed, Allowed, Denied, Allowed, Denied]

    def test_neighbours_that_differ_in_grants_alone_are_decided_each_by_its_own(self, asker):
        grant = (Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/*",)),)
        facts = [asker.facts(grants=grant), asker.facts(), asker.facts(grants=grant)]
        kinds = [type(verdict) for verdict in asker.rulebook.decide_many([asker.access()] * 3, facts)]
        assert kinds == [Allowed, Denied, Allowed]

    def test_neighbours_that_differ_in_rules_alone_are_decided_each_by_its_own(self, asker):
        everything = asker.rules('@id("all") permit (principal, action, resource);')
        facts = [asker.facts(policy=everything), asker.facts(), asker.facts(policy=everything)]
        kinds = [type(verdict) for verdict in asker.rulebook.decide_many([asker.access()] * 3, facts)]
        assert kinds == [Allowed, Denied, Allowed]

    def test_nothing_asked_is_nothing_answered(self, asker):
        assert asker.rulebook.decide_many([], []) == []


class TestDefectsOfTheCaller:
    def test_a_blob_is_not_decided(self, asker):
        access = asker.access(resource=Resource(kind=ResourceKind.BLOB, md5="0" * 32))
        with pytest.raises(TypeError):
            asker.rulebook.decide(access, asker.facts())

    def test_facts_about_another_model_are_not_used(self, asker):
        with pytest.raises(ValueError, match="another model"):
            asker.rulebook.decide(asker.access(model="acme/cars/2"), asker.facts(model_standing=OWN))

    def test_a_package_without_its_name_is_not_decided(self, asker):
        access = asker.access(resource=Resource(kind=ResourceKind.PACKAGE, model="acme/cars/1"))
        with pytest.raises(ValueError, match="package"):
            asker.rulebook.decide(access, asker.facts(model_standing=OWN))


class TestWhatIsKept:
    def test_a_change_of_grants_is_seen_at_once(self, asker):
        grant = (Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/*",)),)
        assert isinstance(asker.rulebook.decide(asker.access(), asker.facts(grants=grant)), Allowed)
        assert isinstance(asker.rulebook.decide(asker.access(), asker.facts(grants=())), Denied)

    def test_one_tenants_grants_never_serve_another(self, asker):
        grant = (Grant(grant_id="g", actions=frozenset({"read"}), models=("acme/*",)),)
        asker.rulebook.decide(asker.access(), asker.facts(grants=grant))
        assert isinstance(asker.rulebook.decide(asker.access(tenant="initech"), asker.facts()), Denied)

    def test_the_number_of_tenants_kept_is_bounded(self, asker):
        rulebook = Rulebook()
        for number in range(MAX_GRANT_INDEXES + 3):
            rulebook._index_of(asker.access(tenant=f"t{number}").principal, asker.facts())
        assert len(rulebook.memory) == MAX_GRANT_INDEXES


class TestTokens:
    @pytest.mark.parametrize(
        ("only", "expected"),
        [
            ("acme/cars/1", Allowed),
            ("acme/cars/*", Allowed),
            ("acme/*", Allowed),
            ("acme/cars/10", Denied),
            ("acme/cars/1/*", Denied),
            ("acme/car/*", Denied),
            ("acme/latest", Denied),
        ],
    )
    @pytest.mark.parametrize("action", [Action.DISCOVER, Action.READ, Action.INFER])
    def test_a_token_that_is_narrowed_reaches_no_other_model_by_any_name(self, asker, only, expected, action):
        facts = asker.facts(model_standing=PUBLIC, requested_standing=PUBLIC, requested="acme/latest")
        access = asker.access(model="acme/latest", action=action)
        assert isinstance(asker.rulebook.decide(access, facts), Allowed)
        narrowed = replace(access, principal=replace(access.principal, only=only))
        verdict = asker.rulebook.decide(narrowed, facts)
        assert isinstance(verdict, expected)
        if isinstance(verdict, Denied):
            assert (verdict.reason, verdict.may_discover) == (Reason.NOT_PERMITTED, False)

    @pytest.mark.parametrize("action", ALLOWABLE)
    def test_a_token_that_is_narrowed_runs_models_and_nothing_beside(self, asker, action):
        access = asker.access(resource=Resource(kind=ResourceKind.TENANT), action=action)
        access = replace(access, principal=replace(access.principal, allows=(action.value,)))
        facts = asker.facts(requested=None, model=None)
        assert isinstance(asker.rulebook.decide(access, facts), Allowed)
        narrowed = replace(access, principal=replace(access.principal, only="acme/cars/*"))
        verdict = asker.rulebook.decide(narrowed, facts)
        assert isinstance(verdict, Denied)
        assert (verdict.reason, verdict.may_discover) == (Reason.MISSING_ACTION, True)

    @pytest.mark.parametrize(
        ("action", "scope"),
        [(Action.INTROSPECT, Scope.TOKENS_INTROSPECT), (Action.ASK, Scope.DECISIONS_ASK)],
    )
    def test_whoever_may_identify_itself_may_have_a_token_and_only_a_scope_lets_it_ask_about_others(
        self, action, scope, asker
    ):
        itself = Resource(kind=ResourceKind.SELF)
        exchange = asker.access(resource=itself, action=Action.EXCHANGE)
        assert isinstance(asker.rulebook.decide(exchange, asker.facts(requested=None, model=None)), Allowed)
        ask = asker.access(resource=itself, action=action)
        verdict = asker.rulebook.decide(ask, asker.facts(requested=None, model=None))
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.MISSING_SCOPE
        scoped = replace(ask.principal, scopes=ask.principal.scopes | {scope})
        verdict = asker.rulebook.decide(
            replace(ask, principal=scoped), asker.facts(requested=None, model=None)
        )
        assert isinstance(verdict, Allowed)


class TestLapsed:
    """A right that is not in force denies like none; the record says which it was."""

    LENT = Grant(grant_id="lent", actions=frozenset({"read"}), models=("acme/cars/1",))

    @pytest.mark.parametrize(
        ("state", "reason"), [("ended", Reason.EXPIRED_GRANT), ("ahead", Reason.GRANT_NOT_YET_VALID)]
    )
    def test_a_grant_that_is_not_in_force_denies_and_is_named(self, asker, state, reason):
        verdict = Rulebook().decide(asker.access(), asker.facts(**{state: (self.LENT,)}))
        assert (verdict.reason, verdict.grant, verdict.may_discover) == (reason, "lent", False)

    def test_one_on_something_else_is_not(self, asker):
        other = replace(self.LENT, models=("acme/trucks/*",))
        infer = replace(self.LENT, actions=frozenset({"infer"}))
        verdict = Rulebook().decide(asker.access(), asker.facts(ended=(other, infer)))
        assert (verdict.reason, verdict.grant) == (Reason.NOT_PERMITTED, None)

    def test_where_a_rule_forbids_it_the_grant_is_no_reason(self, asker):
        forbid = '@id("no") forbid (principal, action, resource);'
        facts = asker.facts(ended=(self.LENT,), policy=asker.shipped_and(forbid))
        verdict = Rulebook().decide(asker.access(), facts)
        assert (verdict.reason, verdict.grant) == (Reason.NOT_PERMITTED, None)

    def test_what_the_caller_may_discover_stays_a_missing_action(self, asker):
        shown = replace(self.LENT, grant_id="shown", actions=frozenset({"discover"}))
        verdict = Rulebook().decide(asker.access(), asker.facts(grants=(shown,), ended=(self.LENT,)))
        assert (verdict.reason, verdict.grant) == (Reason.MISSING_ACTION, "lent")

    @pytest.mark.parametrize(
        ("state", "reason"),
        [(PeriodState.ENDED, Reason.EXPIRED_GRANT), (PeriodState.NOT_YET, Reason.GRANT_NOT_YET_VALID)],
    )
    def test_a_publication_that_is_not_in_force_is_the_reason(self, asker, state, reason):
        facts = asker.facts()
        standing = replace(facts.model_standing, lapsed=state)
        assert Rulebook().decide(asker.access(), replace(facts, model_standing=standing)).reason is reason

    def test_a_token_narrowed_to_other_models_learns_nothing(self, asker):
        access = asker.access()
        access = replace(access, principal=replace(access.principal, only="globex/*"))
        verdict = Rulebook().decide(access, asker.facts(ended=(self.LENT,)))
        assert (verdict.reason, verdict.grant) == (Reason.NOT_PERMITTED, None)
