from __future__ import annotations

import pytest

from gateway.decision.world import CaseQuestion, CaseWorld, WorldTenant
from gateway.model.access import ResourceKind
from gateway.model.errors import BadNameError
from gateway.model.facts import KeyKind, Visibility

WORLD = CaseWorld(
    tenants={
        "acme": WorldTenant(
            own=("acme/*",),
            public=("acme/demo/*",),
            private=("acme/demo/2",),
            aliases={"acme/latest": "acme/demo/1"},
            groups={"vision": ("acme/*",), "signs": ("acme/sold",)},
        ),
        "globex": WorldTenant(own=("acme/sold",)),
    }
)


def standing(model: str):
    return WORLD.put(CaseQuestion(action="read", tenant="acme", model=model))[1].model_standing


@pytest.mark.parametrize(
    ("model", "owner", "visibility", "groups"),
    [
        ("acme/x", "acme", Visibility.PRIVATE, {"vision"}),
        ("acme/demo/1", "acme", Visibility.PUBLIC, {"vision"}),
        ("acme/demo/2", "acme", Visibility.PRIVATE, {"vision"}),
        ("acme/sold", "globex", Visibility.PRIVATE, {"signs"}),
        ("other/x", None, Visibility.PRIVATE, set()),
    ],
)
def test_the_most_specific_rule_says_how_a_model_stands(model, owner, visibility, groups):
    found = standing(model)
    assert (found.owner, found.visibility, found.groups) == (owner, visibility, groups)


def test_an_alias_is_asked_about_under_both_names():
    access, facts = WORLD.put(CaseQuestion(action="read", tenant="acme", model="acme/latest", package="p"))
    assert (facts.requested, facts.model) == ("acme/latest", "acme/demo/1")
    assert access.resource.kind is ResourceKind.PACKAGE


def test_who_names_no_tenant_asks_with_an_admin_key():
    access, _ = WORLD.put(CaseQuestion(action="identify", what="self"))
    assert access.principal.kind is KeyKind.ADMIN


@pytest.mark.parametrize(
    "question",
    [
        CaseQuestion(action="write", tenant="acme", model="acme/x"),
        CaseQuestion(action="read", tenant="a b", model="acme/x"),
        CaseQuestion(action="read", tenant="acme", model="acme/x", package="p-1"),
        CaseQuestion(action="read", tenant="acme", model="acme/x", scopes=("everything",)),
        CaseQuestion(action="read", tenant="acme"),
        CaseQuestion(action="read", tenant="acme", what="model"),
    ],
)
def test_what_is_no_name_is_refused(question):
    with pytest.raises(BadNameError):
        WORLD.put(question)
