from __future__ import annotations

import pytest

from gateway.decision.cedar_query import CedarQuery, question_of
from gateway.model.access import Action
from gateway.model.facts import Standing, Visibility

STANDING = Standing(owner="acme", visibility=Visibility.PUBLIC, groups=frozenset({"vision"}))


def asked(access, facts) -> CedarQuery:
    question = question_of(access, facts)
    assert isinstance(question, CedarQuery)
    return question


def test_a_package_and_its_alias_lie_in_the_model_and_in_what_covers_it(asker):
    facts = asker.facts(requested="x/latest", model_standing=STANDING)
    access = asker.access(model="x/latest", package="p1")
    question = asked(access, facts)
    assert question.resources == (
        ("Package", '["acme/cars/1","p1"]'),
        ("Package", '["x/latest","p1"]'),
    )
    parents = {
        uid: [(parent["type"], parent["id"]) for parent in entity["parents"]]
        for uid, entity in question.entities.items()
    }
    assert ("ModelGroup", "pattern:acme/*") in parents[question.resources[0]]
    assert ("ModelGroup", "group:vision") in parents[question.resources[0]]
    assert ("Model", "acme/cars/1") in parents[question.resources[0]]
    assert question.resources[0] in parents[question.resources[1]]
    assert ("ModelGroup", "pattern:x/*") in parents[question.resources[1]]


@pytest.mark.parametrize("owner", [None, "initech"])
def test_an_alias_stands_as_its_model_only_where_nobody_owns_it(asker, owner):
    of_alias = Standing(owner=owner, visibility=Visibility.PRIVATE, groups=frozenset())
    facts = asker.facts(requested="x/latest", requested_standing=of_alias, model_standing=STANDING)
    question = asked(asker.access(model="x/latest"), facts)
    attributes = question.entities[("Model", "x/latest")]["attrs"]
    assert attributes["owner"]["__entity"]["id"] == (owner or "acme")
    assert attributes["isPublic"] is (owner is None)


@pytest.mark.parametrize("action", [Action.READ, Action.INFER, Action.DISCOVER])
def test_discover_is_asked_along_whatever_is_asked(asker, action):
    question = asked(asker.access(action=action), asker.facts())
    assert question.actions[0] == action
    assert Action.DISCOVER in question.actions
