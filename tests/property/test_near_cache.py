"""Laws of the near cache: a current leaf has the value of the latest change that was pushed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.directory.memory.near_cache import ENTRY_BYTES, NearCache
from gateway.model.stamps import LEAF_BYTES
from tests.examples import examples

NAMES = [b"a", b"b", b"c"]
OVERHEAD = ENTRY_BYTES + LEAF_BYTES
FACT_BYTES = 7
MAX_ENTRIES, MAX_BYTES = 2, 2 * OVERHEAD + 20

some_names = st.sampled_from([[b"a"], [b"b"], [b"a", b"b"], [b"a", b"c"], NAMES])
values = st.sampled_from([None, b"1", b"2", b"3333333333"])
numbers = st.integers(0, 3)


class NearCacheBesideAStore(RuleBasedStateMachine):
    """A store that reads when it is asked, answers late, and tells of its changes late but in order."""

    def __init__(self):
        super().__init__()
        self.cache = NearCache(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self.store = dict.fromkeys(NAMES)
        self.told = dict(self.store)  # the state that the changes told so far come to
        self.untold = []
        self.questions = []  # with what the store read for them: the oldest that the reply may say
        self.leaves = []
        self.has_landed = True  # nothing was decoded since a leaf was put

    @rule(names=some_names)
    def begin_read(self, names):
        self.questions.append((self.cache.begin_read(names), {name: self.store[name] for name in names}))

    @precondition(lambda self: self.questions)
    @rule(number=numbers)
    def finish_read(self, number):
        pending, reply = self.questions.pop(number % len(self.questions))
        self.leaves += self.cache.finish_read(pending, reply).values()

    @precondition(lambda self: self.questions)
    @rule(number=numbers)
    def abort_read(self, number):
        self.cache.abort_read(self.questions.pop(number % len(self.questions))[0])

    @rule(names=some_names, value=values)
    def change(self, names, value):
        change = dict.fromkeys(names, value)
        self.store |= change
        self.untold.append(change)

    @precondition(lambda self: self.untold)
    @rule()
    def hear_of_the_next_change(self):
        change = self.untold.pop(0)
        self.cache.invalidate(change)
        self.told |= change

    @rule()
    def hear_of_everything_at_once(self):
        """A push of the server's that names no record: whatever was untold has happened."""
        self.cache.flush()
        self.untold.clear()
        self.told = dict(self.store)

    @rule(number=numbers)
    def decode(self, number):
        if number < len(self.leaves) and self.leaves[number].decoded is None:
            self.leaves[number].keep("fact", FACT_BYTES)
            self.has_landed = False

    @rule(names=some_names)
    def look(self, names):
        for name in names:
            leaf = self.cache.find(name)
            if leaf is not None:
                assert leaf.is_current
                self.leaves.append(leaf)

    @invariant()
    def a_current_leaf_never_says_less_than_was_told(self):
        # It may know of a change before it is told of it; it never goes without one that it was told.
        for leaf in self.leaves:
            if leaf.is_current:
                later = [change[leaf.name] for change in self.untold if leaf.name in change]
                assert leaf.value in [self.told[leaf.name], *later]

    @invariant()
    def a_current_leaf_is_the_one_that_the_cache_would_turn(self):
        for leaf in self.leaves:
            if leaf.is_current:
                assert self.cache._leaves[leaf.name] is leaf

    @invariant()
    def it_stays_within_both_bounds_and_knows_its_size(self):
        held = self.cache._leaves
        assert len(held) <= MAX_ENTRIES
        assert self.cache.held_bytes == sum(
            OVERHEAD + len(name) + len(leaf.value or b"") + FACT_BYTES * (leaf.decoded is not None)
            for name, leaf in held.items()
        )
        decoded_since = 0 if self.has_landed else FACT_BYTES * len(held)
        assert self.cache.held_bytes <= MAX_BYTES + decoded_since


TestNearCacheBesideAStore = NearCacheBesideAStore.TestCase
TestNearCacheBesideAStore.settings = settings(
    stateful_step_count=30, max_examples=examples(300), deadline=None
)
