from __future__ import annotations

import pytest

from gateway.directory.removal.ownership import belongings_of, broad_first, narrow_first, owner_of
from gateway.model.facts import Alias, Grant, ModelRule, Visibility

ACME = ("acme", "ten_00000000000A")
RULES = {
    rule.pattern: rule
    for rule in (
        ModelRule(pattern="acme/*", owner="acme", owner_record=ACME[1], groups=("vision", "own")),
        ModelRule(pattern="acme/open", visibility=Visibility.PUBLIC, groups=("own",)),
        ModelRule(pattern="acme/sold/*", owner="globex"),
        ModelRule(pattern="acme/sold/1", visibility=Visibility.PUBLIC),
        ModelRule(pattern="hub/*", owner="hub", groups=("vision",)),
        ModelRule(pattern="hub/acme", owner="acme", owner_record=ACME[1]),
        ModelRule(pattern="old/*", owner="acme", owner_record="ten_00000000000B"),
        ModelRule(pattern="nobody/x", visibility=Visibility.PUBLIC),
    )
}
ALIASES = (
    Alias(alias="best", canonical="acme/1"),
    Alias(alias="acme/latest", canonical="globex/1"),
    Alias(alias="other", canonical="acme/sold/1"),
)


@pytest.fixture
def belongings():
    return belongings_of(ACME, RULES.values(), ALIASES)


@pytest.mark.parametrize(
    ("pattern", "owner"),
    [
        ("acme/1", ACME),
        ("acme/open", ACME),
        ("acme/sold/1", ("globex", None)),
        ("acme/sold/*", ("globex", None)),
        ("hub/acme", ACME),
        ("hub/acme/x", ("hub", None)),
        ("old/1", ("acme", "ten_00000000000B")),
        ("nobody/x", (None, None)),
        ("acme", (None, None)),
    ],
)
def test_the_most_specific_owner_counts(pattern, owner):
    assert owner_of(pattern, RULES) == owner


def test_what_is_said_below_a_tenants_pattern_is_its_own(belongings):
    assert {rule.pattern for rule in belongings.own_rules} == {"acme/*", "acme/open", "hub/acme"}


def test_a_group_that_others_are_in_is_not_its_own(belongings):
    assert belongings.groups == {"own"}


def test_an_alias_is_its_own_by_its_name_or_by_its_model(belongings):
    assert {alias.alias for alias in belongings.aliases} == {"best", "acme/latest"}


def grant(*models, groups=()):
    return Grant(grant_id="g", actions=frozenset({"read"}), models=models, groups=groups)


def test_a_grant_is_parted_into_what_is_on_its_models_and_the_rest(belongings):
    out, rest = belongings.split(grant("acme/1", "acme/sold/1", "globex/x", groups=("own", "vision")))
    assert (out.models, out.groups) == (("acme/1",), ("own",))
    assert (rest.models, rest.groups) == (("acme/sold/1", "globex/x"), ("vision",))
    assert belongings.split(grant("acme/*")) == (grant("acme/*"), None)
    assert belongings.split(grant("globex/x")) == (None, grant("globex/x"))


def test_a_grant_on_a_pattern_around_its_models_is_wider(belongings):
    assert belongings.is_wider(grant("hub/*"))
    assert not belongings.is_wider(grant("acme/*"))
    assert not belongings.is_wider(grant("globex/*"))


def test_rules_are_ordered_by_what_covers_what():
    rules = [RULES[one] for one in ("acme/*", "acme/sold/1", "acme/sold/*")]
    narrow = [rule.pattern for rule in narrow_first(rules)]
    assert narrow.index("acme/sold/1") < narrow.index("acme/sold/*") < narrow.index("acme/*")
    assert [rule.pattern for rule in broad_first(rules)] == narrow[::-1]
