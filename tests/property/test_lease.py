"""Laws of the lease: when it holds, in whatever order renewals, pushes and reconnects come in."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.directory.memory.lease import MAX_PENDING, Lease
from tests.examples import examples

SECONDS = 1.0

generations = st.integers(0, 4)
moments = st.integers(0, 20).map(lambda tenths: tenths / 10)


class LeaseOfOneWorker(RuleBasedStateMachine):
    """A worker beside the plain truth: which renewals there were, and what was applied since."""

    @initialize(generation=generations)
    def begin(self, generation):
        self.lease = Lease(SECONDS)
        self.applied = generation
        self.counted = []  # sent_at of every renewal whose generation was applied while it was known
        self.waiting = []  # (generation, sent_at), the latest last
        self.is_dropped = True
        self.lease.restart(generation)

    def count(self):
        self.counted += [sent_at for generation, sent_at in self.waiting if generation <= self.applied]
        self.waiting = [one for one in self.waiting if one[0] > self.applied]

    @rule(sent_at=moments, generation=generations)
    def a_renewal_is_answered(self, sent_at, generation):
        self.lease.renewed(sent_at=sent_at, generation=generation)
        self.waiting = [*self.waiting, (generation, sent_at)][-MAX_PENDING:]
        self.count()

    @rule(generation=generations)
    def a_push_is_applied(self, generation):
        self.lease.apply(generation)
        self.applied = max(self.applied, generation)
        self.count()

    @rule(generation=generations)
    def the_feed_is_made_anew(self, generation):
        self.lease.restart(generation)
        self.applied, self.waiting = generation, []

    @rule()
    def the_history_is_another_one(self):
        self.lease.drop()
        self.waiting, self.counted = [], []

    @invariant()
    def it_is_held_for_the_length_of_the_best_renewal_that_counts_and_no_longer(self):
        if not hasattr(self, "lease"):
            return
        best = max((sent_at + SECONDS for sent_at in self.counted), default=float("-inf"))
        assert self.lease.until == best

    @invariant()
    def it_acknowledges_what_was_applied_and_nothing_more(self):
        if hasattr(self, "lease"):
            assert self.lease.applied == self.applied


TestLeaseOfOneWorker = LeaseOfOneWorker.TestCase
TestLeaseOfOneWorker.settings = settings(max_examples=examples(400), deadline=None)


@given(st.lists(st.tuples(generations, moments), max_size=30), st.lists(generations, max_size=10), moments)
def test_a_renewal_with_an_unapplied_generation_never_counts(renewals, applied, now):
    lease = Lease(SECONDS)
    for generation in applied:
        lease.apply(generation)
    highest = max(applied, default=0)
    for generation, sent_at in renewals:
        lease.renewed(sent_at=sent_at, generation=highest + 1 + generation)
    assert not lease.is_held(now)


@given(
    st.permutations(
        [("renewed", 1, 10.0), ("renewed", 3, 10.4), ("apply", 1, 0), ("apply", 2, 0), ("apply", 3, 0)]
    )
)
def test_the_order_of_answers_and_pushes_changes_nothing_in_the_end(events):
    lease = Lease(SECONDS)
    for kind, generation, sent_at in events:
        if kind == "apply":
            lease.apply(generation)
        else:
            lease.renewed(sent_at=sent_at, generation=generation)
    assert lease.until == 10.4 + SECONDS
