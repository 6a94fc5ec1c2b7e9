from __future__ import annotations

import pytest

from gateway.directory import names
from gateway.directory.changes import change
from gateway.directory.look import Look, names_about
from gateway.directory.plain_facts import PlainFacts
from gateway.model.facts import Alias
from gateway.model.names import ModelId, Pattern

pytestmark = pytest.mark.anyio


def test_a_model_is_covered_by_its_alias_record_its_own_rule_and_that_of_each_prefix():
    assert names_about([ModelId("a/b/c")]) == [
        names.alias_fact(ModelId("a/b/c")),
        names.rule_fact(Pattern("a/b/c")),
        names.rule_fact(Pattern("a/b/*")),
        names.rule_fact(Pattern("a/*")),
    ]


ONE, TWO = b"{cachegate}:f:one", b"{cachegate}:f:two"


async def test_a_look_stands_on_the_oldest_generation_it_saw(store, corrupt):
    look = Look(PlainFacts(store), print)
    await look.fetch([ONE])
    await corrupt(TWO, b"2")
    await look.fetch([ONE, TWO])
    stamp = look.stamp([TWO])
    assert (stamp.generation, [(leaf.name, leaf.value) for leaf in stamp.leaves]) == (0, [(TWO, b"2")])


async def test_a_malformed_record_is_reported_once_a_look(store, corrupt):
    reported = []
    name = names.alias_fact(ModelId("a"))
    await corrupt(name)
    look = Look(PlainFacts(store), reported.append)
    await look.fetch([name])
    assert [look.alias_of(ModelId("a")) for _ in range(3)] == [None] * 3
    assert reported == [name.decode()]


async def test_a_remembered_record_that_is_malformed_is_reported_by_every_look(worker, corrupt):
    # It was decoded once, by the first look; each answer that touches it has to say so all the same.
    reported = []
    name = names.alias_fact(ModelId("a"))
    await corrupt(name)
    await worker.catches_up()
    for _ in range(2):
        look = Look(worker.facts, reported.append)
        await look.fetch([name])
        assert look.alias_of(ModelId("a")) is None
        assert look.unreadable == {name: name.decode()}
    assert reported == [name.decode()] * 2


async def test_a_remembered_record_is_decoded_once_for_all_who_read_it(store, worker):
    alias = Alias(alias=ModelId("a"), canonical=ModelId("b"))
    await change(store, lambda changes: changes.put_alias(alias))
    await worker.catches_up()
    looks = [Look(worker.facts, print) for _ in range(2)]
    for look in looks:
        await look.fetch([names.alias_fact(alias.alias)])
    first, second = (look.alias_of(alias.alias) for look in looks)
    assert first is second
    assert first.canonical == "b"


async def test_what_was_read_is_not_read_again_within_one_look(worker, corrupt):
    look = Look(worker.facts, print)
    await look.fetch([ONE])
    await corrupt(ONE, b"newer")
    await worker.catches_up()
    await look.fetch_afresh([ONE])
    # One answer never stands on two states of one record; that it moved is found by the last check.
    assert look.leaves[ONE].value is None
    assert not look.stamp([ONE]).is_current
