"""Bounded memory: what is charged, what is evicted when, and what is never found again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.model.bounded_memory import ENTRY_BYTES, PART_BYTES, STEP, BoundedMemory
from gateway.model.stamps import Leaf
from tests.examples import examples

OWN = 1_000


@dataclass(eq=False)
class Part:
    """A part that values share."""

    held_bytes: int = 500


@dataclass(eq=False)
class Value:
    """A value, with its leaves and parts."""

    leaves: tuple[Leaf, ...] = ()
    parts: tuple[Part, ...] = ()
    is_over: bool = False
    size: int = OWN


def memory_of(entries=1 << 30, max_bytes=1 << 30):
    return BoundedMemory(
        max_bytes=max_bytes,
        max_entries=entries,
        weigh=lambda _, value: value.size,
        stands_on=lambda value: value.leaves,
        other_parts=lambda value: value.parts,
        is_over=lambda value: value.is_over,
    )


def test_a_value_is_found_by_its_key_until_it_is_dropped():
    memory, value = memory_of(), Value()
    memory.put("a", value)
    assert memory.find("a") is memory.peek("a") is value
    assert memory.find("b") is memory.peek("b") is None
    assert ("a" in memory, "b" in memory, memory.hits) == (True, False, 1)
    memory.drop("a")
    memory.drop("a")
    assert memory.find("a") is None
    assert (len(memory), memory.held_bytes) == (0, 0)


def test_what_was_not_used_for_longest_goes_first_and_a_peek_is_no_use():
    memory = memory_of(entries=2)
    memory.put("a", Value())
    memory.put("b", Value())
    memory.find("a")
    memory.peek("b")
    memory.put("c", Value())
    assert [key for key in "abc" if key in memory] == ["a", "c"]


def test_bytes_are_a_bound_of_their_own():
    memory = memory_of(max_bytes=2 * (OWN + ENTRY_BYTES))
    for key in "abc":
        memory.put(key, Value())
    assert [key for key in "abc" if key in memory] == ["b", "c"]
    assert memory.held_bytes == 2 * (OWN + ENTRY_BYTES)


def test_what_several_hold_is_charged_once_for_as_long_as_one_of_them_holds_it():
    memory, leaf, part = memory_of(), Leaf(b"n" * 100, b"v" * 100), Part()
    shared = leaf.held_bytes + part.held_bytes + 2 * PART_BYTES
    for key in "abc":
        memory.put(key, Value((leaf,), (part,)))
    assert memory.held_bytes == 3 * (OWN + ENTRY_BYTES) + shared
    leaf.keep("the fact", 10_000)  # charged when it was put; its growth is charged by the near cache
    for key, left in (("b", 2), ("a", 1)):
        memory.drop(key)
        assert memory.held_bytes == left * (OWN + ENTRY_BYTES) + shared
    memory.drop("c")
    assert memory.held_bytes == 0


def test_a_value_that_is_put_again_is_charged_once():
    memory, leaf = memory_of(), Leaf(b"n", b"v")
    memory.put("a", Value((leaf,)))
    before = memory.held_bytes
    memory.put("a", Value((leaf,)))
    assert memory.held_bytes == before


def test_a_value_larger_than_the_whole_bound_pushes_nothing_out():
    memory = memory_of(max_bytes=5_000)
    memory.put("a", Value())
    for large in (Value(size=5_000), Value(parts=(Part(5_000),)), Value((Leaf(b"n" * 5_000, None),))):
        before = memory.held_bytes
        memory.put("b", large)
        assert (memory.peek("b"), "a" in memory, memory.held_bytes) == (None, True, before)
    memory.put("a", Value(size=5_000))  # it is not stored, but the old value it replaces is dropped
    assert (len(memory), memory.held_bytes) == (0, 0)


@pytest.mark.parametrize("end", ["leaf", "own"])
def test_what_is_no_longer_current_is_not_found_and_let_go_of(end):
    memory, leaf = memory_of(), Leaf(b"n", b"v")
    value = Value((Leaf(b"m", b"v"), leaf))
    memory.put("a", value)
    if end == "leaf":
        leaf.is_current = False
    else:
        value.is_over = True
    assert memory.find("a") is None
    assert (len(memory), memory.held_bytes) == (0, 0)
    memory.put("a", value)  # no late writer
    assert (len(memory), memory.held_bytes) == (0, 0)


def test_a_sweep_lets_go_of_what_nobody_asks_for_and_of_nothing_else():
    memory, moved = memory_of(), Leaf(b"n", b"v")
    for number in range(3 * STEP):
        memory.put(number, Value((moved,) if number % 3 else (), is_over=False))
    moved.is_current = False
    steps = len(list(memory.sweep()))
    assert steps >= 2  # the event loop could run between them
    assert len(memory) == STEP
    assert memory.held_bytes == STEP * (OWN + ENTRY_BYTES)


def test_a_value_with_many_parts_is_put_and_dropped_in_steps():
    memory = memory_of()
    value = Value(tuple(Leaf(b"%d" % number, None) for number in range(3 * STEP)))
    assert len(list(memory.putting("a", value))) == 3
    assert len(list(memory.dropping("a"))) == 3
    assert memory.held_bytes == 0


def test_whatever_happens_between_two_steps_the_account_is_right():
    memory = memory_of(max_bytes=1_000_000)
    leaves = tuple(Leaf(b"%d" % number, None) for number in range(3 * STEP // 2))
    slow = memory.putting("slow", Value(leaves))
    next(slow)
    memory.put("a", Value(leaves[:500]))
    memory.put("b", Value(leaves[500:]))
    list(slow)
    memory.drop("a")
    for key in ("slow", "b"):
        memory.drop(key)
    assert (len(memory), memory.held_bytes) == (0, 0)


class Model(RuleBasedStateMachine):
    """Random histories: the bytes charged are those of the values in it, and the bounds hold."""

    MAX_ENTRIES, MAX_BYTES = 4, 9_000

    def __init__(self):
        super().__init__()
        self.memory = memory_of(self.MAX_ENTRIES, self.MAX_BYTES)
        self.leaves = [Leaf(b"n" * 100 * number, None) for number in range(5)]
        self.parts = [Part(300 * number) for number in range(3)]

    @rule(key=st.integers(0, 6), leaves=st.sets(st.integers(0, 4)), parts=st.sets(st.integers(0, 2)),
          size=st.sampled_from([100, 1_000, 4_000, 10_000]))  # fmt: skip
    def put(self, key, leaves, parts, size):
        value = Value(
            tuple(self.leaves[one] for one in leaves), tuple(self.parts[one] for one in parts), size=size
        )
        self.memory.put(key, value)

    @rule(key=st.integers(0, 6))
    def find(self, key):
        value = self.memory.find(key)
        assert value is None or all(leaf.is_current for leaf in value.leaves)

    @rule(key=st.integers(0, 6))
    def drop(self, key):
        self.memory.drop(key)

    @rule(number=st.integers(0, 4))
    def change(self, number):
        self.leaves[number].is_current = False
        self.leaves[number] = Leaf(b"n" * 100 * number, None)

    @rule()
    def sweep(self):
        list(self.memory.sweep())
        assert all(leaf.is_current for value in self.values() for leaf in value.leaves)

    def values(self):
        return [self.memory.peek(key) for key in range(7) if key in self.memory]

    @invariant()
    def the_account_is_right_and_within_the_bounds(self):
        values = self.values()
        parts = {id(one): one for value in values for one in (*value.leaves, *value.parts)}
        held = sum(ENTRY_BYTES + value.size for value in values)
        held += sum(PART_BYTES + one.held_bytes for one in parts.values())
        assert self.memory.held_bytes == held <= self.MAX_BYTES
        assert len(values) == len(self.memory) <= self.MAX_ENTRIES


TestAnyHistory = Model.TestCase
TestAnyHistory.settings = settings(stateful_step_count=30, max_examples=examples(200), deadline=None)
