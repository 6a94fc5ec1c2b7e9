from __future__ import annotations

import pytest

from gateway.directory.edits.changes import change
from gateway.directory.reading.read_set import ReadSet, names_about
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
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
    read_set = ReadSet(PlainFacts(store), print)
    await read_set.fetch([ONE])
    await corrupt(TWO, b"2")
    await read_set.fetch([ONE, TWO])
    stamp = read_set.stamp([TWO])
    assert (stamp.generation, [(leaf.name, leaf.value) for leaf in stamp.leaves]) == (0, [(TWO, b"2")])


async def test_a_malformed_record_is_reported_once_a_look(store, corrupt):
    reported = []
    name = names.alias_fact(ModelId("a"))
    await corrupt(name)
    read_set = ReadSet(PlainFacts(store), reported.append)
    await read_set.fetch([name])
    assert [read_set.alias_of(ModelId("a")) for _ in range(3)] == [None] * 3
    assert reported == [name.decode()]


async def test_a_remembered_record_that_is_malformed_is_reported_by_every_look(worker, corrupt):
    # It was decoded once, for the first answer; every later answer that uses it must report it too.
    reported = []
    name = names.alias_fact(ModelId("a"))
    await corrupt(name)
    await worker.catches_up()
    for _ in range(2):
        read_set = ReadSet(worker.facts, reported.append)
        await read_set.fetch([name])
        assert read_set.alias_of(ModelId("a")) is None
        assert read_set.unreadable == {name: name.decode()}
    assert reported == [name.decode()] * 2


async def test_a_remembered_record_is_decoded_once_for_all_who_read_it(store, worker):
    alias = Alias(alias=ModelId("a"), canonical=ModelId("b"))
    await change(store, lambda changes: changes.put_alias(alias))
    await worker.catches_up()
    looks = [ReadSet(worker.facts, print) for _ in range(2)]
    for read_set in looks:
        await read_set.fetch([names.alias_fact(alias.alias)])
    first, second = (read_set.alias_of(alias.alias) for read_set in looks)
    assert first is second
    assert first.canonical == "b"


async def test_what_was_read_is_not_read_again_within_one_look(worker, corrupt):
    read_set = ReadSet(worker.facts, print)
    await read_set.fetch([ONE])
    await corrupt(ONE, b"newer")
    await worker.catches_up()
    await read_set.fetch_afresh([ONE])
    # One answer never uses two states of one record; the last check detects that it changed.
    assert read_set.leaves[ONE].value is None
    assert not read_set.stamp([ONE]).is_current
