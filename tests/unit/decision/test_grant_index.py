from __future__ import annotations

import pytest

from gateway.decision.grant_index import GrantIndex, GrantSlice, group_id, pair_id, pattern_id
from gateway.model.access import Action
from gateway.model.facts import Grant

READ = frozenset({"read"})


def grant(name: str, **said) -> Grant:
    return Grant(**{"grant_id": name, "actions": READ, **said})


def test_ids_of_different_things_differ_whatever_they_are_called():
    names = ["a", "a/*", "group:a", "pattern:a", '["a","b"]', 'a","b']
    ids = [make(name) for name in names for make in (pattern_id, group_id)]
    ids += [pair_id(left, right) for left in names for right in names]
    assert len(set(ids)) == len(ids)


def test_a_slice_holds_what_is_filed_under_the_covers_and_no_more():
    index = GrantIndex([grant("g", models=("a/*", "b")), grant("h", groups=("v",))])
    assert index.slice(["pattern:a/*", "pattern:c"], []) == GrantSlice(reads=frozenset({"pattern:a/*"}))
    assert index.slice(["group:v"], []) == GrantSlice(reads=frozenset({"group:v"}))
    assert index.slice([], []) == GrantSlice()


def test_a_narrowed_grant_gives_packages_and_a_glimpse_of_the_model():
    index = GrantIndex([grant("g", models=("a",), packages=("p", "q"))])
    assert index.slice(["pattern:a"], ["p", "z"]) == GrantSlice(
        reads_packages=frozenset({pair_id("pattern:a", "p")}), glimpses=frozenset({"pattern:a"})
    )


def test_a_narrowed_grant_to_run_gives_no_glimpse():
    index = GrantIndex([grant("g", actions=frozenset({"infer"}), models=("a",), packages=("p",))])
    assert index.slice(["pattern:a"], ["p"]) == GrantSlice(
        infers_packages=frozenset({pair_id("pattern:a", "p")})
    )


def test_an_action_that_nobody_knows_gives_nothing():
    index = GrantIndex([grant("g", actions=frozenset({"write", "*"}), models=("a",))])
    assert index.slice(["pattern:a"], []) == GrantSlice()


@pytest.mark.parametrize(
    ("action", "package", "expected"),
    [
        (Action.READ, None, ["whole"]),
        (Action.READ, "p", ["whole", "narrow"]),
        (Action.READ, "q", ["whole"]),
        (Action.DISCOVER, None, ["whole", "narrow"]),
        (Action.DISCOVER, "q", ["whole"]),
        (Action.INFER, "p", []),
    ],
)
def test_matching_grants_are_those_that_give_the_action(action, package, expected):
    index = GrantIndex([grant("whole", models=("a", "b/*")), grant("narrow", models=("a",), packages=("p",))])
    matched = index.matching(action, ["pattern:a", "pattern:b/*"], package)
    assert [each.grant_id for each, _ in matched] == expected
