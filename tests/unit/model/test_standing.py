from __future__ import annotations

import pytest

from gateway.model.facts import ModelRule, Standing, Visibility
from gateway.model.names import GroupName, Pattern, TenantId
from gateway.model.standing import TenantModels, standing_of

PUBLIC, PRIVATE = Visibility.PUBLIC, Visibility.PRIVATE

# Each case: rules from the most specific on, as (owner, visibility, groups), then the expected result.
CASES = {
    "no rule at all is private and nobody's": ([], (None, PRIVATE, ())),
    "a rule that says nothing changes nothing": ([(None, None, ())], (None, PRIVATE, ())),
    "the only owner": ([("acme", None, ())], ("acme", PRIVATE, ())),
    "the most specific owner wins": ([("acme", None, ()), ("globex", None, ())], ("acme", PRIVATE, ())),
    "a silent rule lets the broader owner through": (
        [(None, None, ()), ("globex", None, ())],
        ("globex", PRIVATE, ()),
    ),
    "the most specific visibility wins": (
        [(None, PRIVATE, ()), ("acme", PUBLIC, ())],
        ("acme", PRIVATE, ()),
    ),
    "a published prefix publishes what it owns": (
        [(None, None, ()), ("acme", PUBLIC, ())],
        ("acme", PUBLIC, ()),
    ),
    "publication broader than the owner does not reach": (
        [("globex", None, ()), ("acme", PUBLIC, ())],
        ("globex", PRIVATE, ()),
    ),
    "publication above the owner's own prefix does not reach": (
        [("acme", None, ()), (None, PUBLIC, ())],
        ("acme", PRIVATE, ()),
    ),
    "without an owner every publication reaches": (
        [(None, None, ()), (None, PUBLIC, ())],
        (None, PUBLIC, ()),
    ),
    "groups are gathered up to the owner": (
        [(None, None, ("a",)), ("acme", None, ("b",)), (None, None, ("c",))],
        ("acme", PRIVATE, ("a", "b")),
    ),
    "without an owner all groups count": (
        [(None, None, ("a",)), (None, None, ("b",))],
        (None, PRIVATE, ("a", "b")),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_stands_as_its_most_specific_rules_say(name):
    rows, (owner, visibility, groups) = CASES[name]
    rules = [
        ModelRule(
            pattern=Pattern(f"p{index}"),
            owner=None if owner is None else TenantId(owner),
            visibility=visibility,
            groups=tuple(map(GroupName, groups)),
        )
        for index, (owner, visibility, groups) in enumerate(rows)
    ]
    assert standing_of(rules) == Standing(owner=owner, visibility=visibility, groups=frozenset(groups))


def test_what_a_tenant_says_of_a_pattern_is_one_rule():
    said = TenantModels(
        own=("acme/*", "acme/x"),
        public=("acme/x", "acme/y"),
        private=("acme/y",),
        groups={"b": ("acme/y", "acme/z"), "a": ("acme/y",)},
    )
    assert list(said.rules("acme", "policies:acme")) == [
        ModelRule(pattern=pattern, owner=owner, visibility=visibility, groups=groups, source="policies:acme")
        for pattern, owner, visibility, groups in [
            ("acme/*", "acme", None, ()),
            ("acme/x", "acme", Visibility.PUBLIC, ()),
            ("acme/y", None, Visibility.PRIVATE, ("b", "a")),  # a contradiction is not public
            ("acme/z", None, None, ("b",)),
        ]
    ]
