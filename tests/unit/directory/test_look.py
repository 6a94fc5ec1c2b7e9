from __future__ import annotations

import pytest

from gateway.directory import names
from gateway.directory.look import Look, names_about
from gateway.model.facts import Stamp
from gateway.model.names import ModelId, Pattern

pytestmark = pytest.mark.anyio


def test_a_model_is_covered_by_its_alias_record_its_own_rule_and_that_of_each_prefix():
    assert names_about([ModelId("a/b/c")]) == [
        names.alias_fact(ModelId("a/b/c")),
        names.rule_fact(Pattern("a/b/c")),
        names.rule_fact(Pattern("a/b/*")),
        names.rule_fact(Pattern("a/*")),
    ]


async def test_a_look_stands_on_the_oldest_generation_it_saw(store, corrupt):
    look = Look(store, print)
    await look.fetch([b"{cachegate}:f:one"])
    await corrupt(b"{cachegate}:f:two", b"2")
    await look.fetch([b"{cachegate}:f:one", b"{cachegate}:f:two"])
    assert look.stamp([b"{cachegate}:f:two"]) == Stamp(0, ((b"{cachegate}:f:two", b"2"),))


async def test_a_malformed_record_is_reported_once_a_look(store, corrupt):
    reported = []
    name = names.alias_fact(ModelId("a"))
    await corrupt(name)
    look = Look(store, reported.append)
    await look.fetch([name])
    assert [look.alias_of(ModelId("a")) for _ in range(3)] == [None] * 3
    assert reported == [name.decode()]
