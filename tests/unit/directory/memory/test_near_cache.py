from __future__ import annotations

import pytest

from gateway.directory.memory.near_cache import ENTRY_BYTES, NearCache
from gateway.model.stamps import LEAF_BYTES

OVERHEAD = ENTRY_BYTES + LEAF_BYTES
A, B, C = b"a", b"b", b"c"


@pytest.fixture
def cache():
    return NearCache(max_entries=3, max_bytes=1 << 20)


def fetch(cache, **values):
    """A whole read: begun, answered, and cached."""
    named = {name.encode(): value for name, value in values.items()}
    return cache.finish_read(cache.begin_read(list(named)), named)


def test_what_was_read_is_remembered_absent_records_too(cache):
    landed = fetch(cache, a=b"1", b=None)
    assert cache.find(A) is landed[A]
    assert cache.find(B) is landed[B]
    assert (landed[A].value, landed[B].value) == (b"1", None)
    assert cache.find(C) is None


def test_a_change_reaches_every_answer_that_stands_on_the_record(cache):
    leaf = fetch(cache, a=b"1", b=b"2")[A]
    cache.invalidate([A, C])
    assert not leaf.is_current
    assert cache.find(A) is None
    assert cache.find(B).is_current


def test_a_reply_that_was_overtaken_is_handed_out_but_not_remembered(cache):
    pending = cache.begin_read([A, B])
    cache.invalidate([A])
    landed = cache.finish_read(pending, {A: b"old", B: b"2"})
    assert (landed[A].value, landed[A].is_current) == (b"old", False)
    assert cache.find(A) is None
    assert cache.find(B).is_current


def test_a_reply_that_departed_before_a_flush_puts_nothing_back(cache):
    pending = cache.begin_read([A])
    cache.flush()
    assert not cache.finish_read(pending, {A: b"old"})[A].is_current
    assert len(cache) == 0


def test_a_change_after_the_landing_of_one_flight_spoils_the_other_one_too(cache):
    first, second = cache.begin_read([A]), cache.begin_read([A])
    landed = cache.finish_read(first, {A: b"old"})[A]
    cache.invalidate([A])
    assert not landed.is_current
    assert not cache.finish_read(second, {A: b"old"})[A].is_current
    assert cache.find(A) is None


def test_a_flight_that_crashed_is_told_of_nothing_more(cache):
    pending = cache.begin_read([A])
    cache.abort_read(pending)
    cache.invalidate([A])
    assert pending.overtaken == set()
    assert cache._reads == set()


def test_the_same_value_read_again_leaves_what_stands_on_it_standing(cache):
    leaf = fetch(cache, a=b"1")[A]
    assert fetch(cache, a=b"1")[A] is leaf
    assert leaf.is_current


def test_another_value_read_later_ends_what_stood_on_the_first(cache):
    # The change was not reported yet, but the store already has it.
    first, second = fetch(cache, a=b"1")[A], fetch(cache, a=b"2")[A]
    assert (first.is_current, second.is_current) == (False, True)
    assert cache.find(A) is second


def test_a_flush_forgets_everything(cache):
    leaves = fetch(cache, a=b"1", b=None).values()
    cache.flush()
    assert not any(leaf.is_current for leaf in leaves)
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_the_least_recently_used_goes_first_and_is_no_longer_current(cache):
    leaves = {name: fetch(cache, **{name: b"v"})[name.encode()] for name in "abc"}
    cache.find(A)
    fetch(cache, d=b"v")
    # Later changes cannot reach an evicted leaf, so it is invalidated at once.
    assert [name for name, leaf in leaves.items() if not leaf.is_current] == ["b"]
    assert cache.find(B) is None
    assert cache.counts.evictions == 1


def test_bytes_are_a_bound_of_their_own():
    cache = NearCache(max_entries=1000, max_bytes=3 * OVERHEAD)
    for number in range(10):
        fetch(cache, **{f"name{number}": b"x" * 100})
    assert len(cache) == 2
    assert cache.held_bytes == 2 * (OVERHEAD + len(b"name0") + 100)


def test_a_fact_that_is_decoded_is_charged_as_well_and_makes_others_go():
    cache = NearCache(max_entries=1000, max_bytes=4 * OVERHEAD)
    first = fetch(cache, a=b"1")[A]
    first.keep("the fact", 2 * OVERHEAD)
    assert cache.held_bytes == 3 * OVERHEAD + 2
    fetch(cache, b=b"2")
    assert cache.find(A) is None
    assert not first.is_current
    first.keep("another", 100)  # no longer counted by the cache
    assert cache.held_bytes == OVERHEAD + 2


def test_a_record_larger_than_the_whole_bound_is_not_remembered():
    cache = NearCache(max_entries=10, max_bytes=2 * OVERHEAD)
    landed = fetch(cache, a=b"x" * 10_000)[A]
    assert not landed.is_current
    assert (len(cache), cache.held_bytes) == (0, 0)


def test_what_happened_is_counted(cache):
    fetch(cache, a=b"1")
    cache.find(A)
    cache.find(B)
    pending = cache.begin_read([B])
    cache.invalidate([B])
    cache.finish_read(pending, {B: b"1"})
    cache.flush()
    counts = cache.counts
    assert (counts.hits, counts.misses, counts.invalidations, counts.overtaken, counts.flushes) == (
        1,
        1,
        1,
        1,
        1,
    )
