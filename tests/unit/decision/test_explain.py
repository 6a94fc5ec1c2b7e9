from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from gateway.decision.explain import explain
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.facts import Grant, KeyKind, ModelRule, Scope, Standing, Visibility

OWN = Standing(owner="globex", visibility=Visibility.PRIVATE, groups=frozenset())
FILE = Resource(kind=ResourceKind.FILE, model="acme/cars/1", package="p1", file="w.onnx")


def steps(explanation):
    return [(step.kind, step.name) for step in explanation.path]


def test_an_allow_by_grant_shows_the_whole_path(asker):
    grant = Grant(grant_id="g1", actions=frozenset({"read"}), models=("acme/cars/*",), packages=("p1",))
    told = explain(asker.access(resource=FILE), asker.facts(grants=(grant,)), asker.rulebook)
    assert (told.verdict, told.reason, told.needed) == ("allow", "permitted", ())
    assert steps(told) == [
        ("key", "key_0123456789ab"),
        ("tenant", "globex"),
        ("grant", "g1"),
        ("pattern", "acme/cars/*"),
        ("model", "acme/cars/1"),
        ("package", "p1"),
        ("file", "w.onnx"),
    ]
    assert [(each.policy, each.effect, each.file) for each in told.policies] == [
        ("grant-gives-read", "permit", "grants.cedar")
    ]


@pytest.mark.parametrize(
    ("standing", "step"),
    [
        (OWN, ("owner", "globex")),
        (replace(OWN, owner="acme", visibility=Visibility.PUBLIC), ("public", "every tenant")),
    ],
)
def test_an_allow_by_standing_says_so(asker, standing, step):
    facts = asker.facts(model_standing=standing, requested_standing=standing)
    assert step in steps(explain(asker.access(), facts, asker.rulebook))


def test_every_covering_pattern_is_listed_with_what_it_says(asker):
    rules = [
        ModelRule(pattern="acme/*", owner="acme", groups=("vision",), source="policies:acme"),
        ModelRule(pattern="acme/cars/1", visibility=Visibility.PRIVATE, source="cli"),
    ]
    told = explain(
        asker.access(), asker.facts(requested="x/latest", model="acme/cars/1"), asker.rulebook, rules
    )
    assert [(each.pattern, each.owner, each.source) for each in told.covers] == [
        ("acme/cars/1", None, "cli"),
        ("acme/cars/*", None, ""),
        ("acme/*", "acme", "policies:acme"),
        ("x/latest", None, ""),
        ("x/*", None, ""),
    ]


def test_a_denial_says_what_would_be_needed(asker):
    told = explain(asker.access(package="p1"), asker.facts(), asker.rulebook)
    assert (told.verdict, told.reason, told.may_discover) == ("deny", "not-permitted", False)
    assert ("refused", "not-permitted") in steps(told)
    assert any("read" in line and "globex" in line and "acme/cars/1" in line for line in told.needed)


def test_a_missing_scope_is_what_is_needed(asker):
    facts = asker.facts(model_standing=OWN, requested_standing=OWN)
    told = explain(asker.access(scopes={Scope.DISCOVER}), facts, asker.rulebook)
    assert told.needed == ("the scope read on the key",)
    assert [each.policy for each in told.policies] == ["scope-caps-read"]
    assert told.scopes == ("discover",)


def test_a_missing_scope_is_named_though_it_hides_the_model(asker):
    facts = asker.facts(model_standing=OWN, requested_standing=OWN)
    told = explain(asker.access(scopes={Scope.INFER}), facts, asker.rulebook)
    assert told.reason == "not-permitted"
    assert told.needed[0] == "the scope read on the key"


def test_an_admin_key_is_told_to_use_a_tenants(asker):
    told = explain(asker.access(kind=KeyKind.ADMIN, tenant=None), asker.facts(), asker.rulebook)
    assert "tenant's key" in told.needed[0]


def test_unreadable_facts_and_broken_rules_are_named(asker):
    told = explain(asker.access(), asker.facts(unreadable=("f:g:globex",)), asker.rulebook)
    assert "f:g:globex" in told.needed[0]
    told = explain(asker.access(), asker.facts(policy=asker.rules("nonsense")), asker.rulebook)
    assert told.reason == "policy-error"
    assert "policy" in told.needed[0]


@pytest.mark.parametrize("kind", [ResourceKind.SELF, ResourceKind.CATALOGUE])
@pytest.mark.parametrize("scopes", [set(), {Scope.READ}])
def test_what_is_no_content_is_explained_too(asker, kind, scopes):
    action = Action.IDENTIFY if kind is ResourceKind.SELF else Action.DISCOVER
    access = asker.access(resource=Resource(kind=kind), action=action, scopes=scopes)
    facts = asker.facts(model=None, requested=None, model_standing=None)
    told = explain(access, facts, asker.rulebook)
    assert (told.verdict == "allow") == (kind is ResourceKind.SELF or bool(scopes))
    assert told.covers == ()
    assert bool(told.needed) == (told.verdict == "deny")


def test_both_forms_say_the_same(asker):
    told = explain(asker.access(), asker.facts(model_standing=OWN, requested_standing=OWN), asker.rulebook)
    plain = json.loads(json.dumps(told.as_json()))
    assert plain["verdict"] == "allow"
    assert [step["kind"] for step in plain["path"]] == [step.kind for step in told.path]
    rows = told.as_rows()
    assert rows[0] == ("verdict", "allow")
    text = "\n".join(f"{left} {right}" for left, right in rows)
    for word in ("owner-uses-its-models", "ownership.cedar", "acme/cars/*", "key_0123456789ab"):
        assert word in text
