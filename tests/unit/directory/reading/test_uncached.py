from __future__ import annotations

import pytest

from gateway.directory.reading.uncached import PlainFacts
from gateway.model.stamps import Leaf, Stamp

pytestmark = pytest.mark.anyio

NAME, ABSENT = b"{cachegate}:f:t:a", b"{cachegate}:f:t:b"


async def test_every_read_goes_to_the_store(store, corrupt):
    facts = PlainFacts(store)
    await corrupt(NAME, b"1")
    for value, read in ((b"1", facts.read), (b"2", facts.read_afresh)):
        await corrupt(NAME, value)
        generation, leaves = await read([NAME, ABSENT])
        assert [(leaf.name, leaf.value) for leaf in leaves] == [(NAME, value), (ABSENT, None)]
        assert generation == await store.generation()


def test_nothing_that_was_read_without_following_changes_may_let_a_byte_out():
    facts = PlainFacts(None)
    for stamp in (Stamp(1, (Leaf(NAME, b"1"),)), Stamp(1, ())):
        assert not facts.holds(stamp, 3600.0)
    assert not facts.is_leased()


def test_a_command_decides_on_what_it_just_read():
    facts = PlainFacts(None)
    facts.verify_fresh(0.0)
    assert facts.is_fresh(0.0)


def test_nothing_is_remembered():
    facts = PlainFacts(None)
    assert facts.find([NAME]) is None
    assert facts.find([]) == []


def test_no_two_epochs_are_the_same_where_no_changes_are_followed():
    facts = PlainFacts(None)
    assert len({facts.epoch for _ in range(5)}) == 5
