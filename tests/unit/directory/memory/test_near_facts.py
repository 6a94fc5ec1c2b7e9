"""Reading through the near cache, with a store whose replies the test releases."""

from __future__ import annotations

import asyncio

import pytest

from gateway.directory.memory import near_facts
from gateway.directory.memory.lease import Lease
from gateway.directory.memory.near_cache import NearCache
from gateway.directory.memory.near_facts import NearFacts
from gateway.model.errors import Reason, Unavailable
from gateway.model.stamps import Stamp
from gateway.model.stores import Moment

pytestmark = pytest.mark.anyio

A, B, C = b"a", b"b", b"c"


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


def at(generation, mark="ours"):
    """A moment of the feed's history; with another mark, of another history."""
    return Moment(history="h", generation=generation, mark=f"{mark}{generation}")


class HeldStore:
    """A store whose replies hold the values at the time of the read, and arrive when they are released."""

    def __init__(self):
        self.values = {}
        self.asked = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = None
        self.moment = at(1)
        self.moves = 0

    def move(self):
        self.moves += 1

    async def read(self, names):
        self.asked.append(list(names))
        reply = self.moment, [self.values.get(name) for name in names]
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return reply


class ManualClock:
    """A clock that the test sets."""

    def __init__(self):
        self.time = 100.0

    def monotonic(self):
        return self.time


@pytest.fixture
def store():
    return HeldStore()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def facts(store, clock):
    facts = NearFacts(store, NearCache(max_entries=100, max_bytes=1 << 20), Lease(1.0), clock)
    facts.connected(at(1))
    return facts


def hold(store):
    store.gate.clear()


async def begin(coroutine):
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def values(facts, *names):
    _, leaves = await facts.read(names)
    return [leaf.value for leaf in leaves]


async def test_what_is_remembered_is_not_asked_again(facts, store):
    store.values[A] = b"1"
    assert await values(facts, A, B) == [b"1", None]
    assert await values(facts, B, A) == [None, b"1"]
    assert store.asked == [[A, B]]
    assert [leaf.value for leaf in facts.find([A, B])] == [b"1", None]
    assert facts.find([A, C]) is None


async def test_only_what_is_missing_is_asked_for_and_each_name_once(facts, store):
    await values(facts, A)
    await values(facts, A, B, B)
    assert store.asked == [[A], [B]]


async def test_many_who_miss_the_same_record_make_one_flight(facts, store):
    hold(store)
    store.values[A] = b"1"
    readers = [await begin(values(facts, A)) for _ in range(20)]
    store.gate.set()
    assert await asyncio.gather(*readers) == [[b"1"]] * 20
    assert store.asked == [[A]]


async def test_a_flight_is_joined_for_one_name_and_made_for_the_other(facts, store):
    hold(store)
    first, second = await begin(values(facts, A)), await begin(values(facts, A, B))
    store.gate.set()
    await asyncio.gather(first, second)
    assert store.asked == [[A], [B]]


async def test_whoever_reads_afresh_flies_alone_and_its_answer_is_remembered(facts, store):
    store.values[A] = b"1"
    await values(facts, A)
    store.values[A] = b"2"
    _, [leaf] = await facts.read_afresh([A])
    assert leaf.value == b"2"
    assert store.asked == [[A], [A]]
    assert facts.find([A]) == [leaf]


async def test_who_asks_after_a_change_does_not_get_what_was_read_before_it(facts, store):
    hold(store)
    store.values[A] = b"old"
    early = await begin(facts.read([A]))
    store.values[A] = b"new"
    facts.changed([A])
    late = await begin(facts.read([A]))
    store.gate.set()
    (_, [overtaken]), (_, [leaf]) = await asyncio.gather(early, late)
    assert (overtaken.value, overtaken.is_current) == (b"old", False)
    assert (leaf.value, leaf.is_current) == (b"new", True)
    assert await values(facts, A) == [b"new"]


@pytest.mark.parametrize("names", [(A, B), (B, A)])
async def test_a_flight_that_is_joined_for_one_name_says_nothing_about_another(names, facts, store):
    """Its read included the other name as well, but before that changed."""
    hold(store)
    store.values = {A: b"old", B: b"same"}
    early = await begin(facts.read([A, B]))
    store.values[A] = b"new"
    facts.changed([A])
    late = await begin(facts.read(names))
    store.gate.set()
    await early
    _, leaves = await late
    assert {leaf.name: (leaf.value, leaf.is_current) for leaf in leaves} == {
        A: (b"new", True),
        B: (b"same", True),
    }
    assert store.asked == [[A, B], [A]]


async def test_who_joined_a_read_before_it_was_overtaken_reads_once_more(facts, store):
    hold(store)
    store.values[A] = b"old"
    first, joined = await begin(facts.read([A])), await begin(facts.read([A]))
    facts.changed([A])
    store.values[A] = b"new"
    store.gate.set()
    (_, [overtaken]), (_, [leaf]) = await asyncio.gather(first, joined)
    assert (overtaken.value, overtaken.is_current) == (b"old", False)
    assert (leaf.value, leaf.is_current) == (b"new", True)


async def test_a_late_reply_does_not_put_an_old_record_back_over_a_new_one(facts, store):
    hold(store)
    store.values[A] = b"old"
    early = await begin(facts.read([A]))
    store.values[A] = b"new"
    facts.changed([A])
    held, store.gate = store.gate, asyncio.Event()
    store.gate.set()
    assert await values(facts, A) == [b"new"]
    held.set()
    await early
    assert await values(facts, A) == [b"new"]
    assert len(store.asked) == 2


async def test_a_reply_from_before_a_new_feed_is_not_remembered(facts, store):
    hold(store)
    early = await begin(facts.read([A]))
    facts.disconnected()
    facts.connected(at(7))
    store.gate.set()
    _, [leaf] = await early
    assert not leaf.is_current
    assert facts.find([A]) is None


async def test_a_reply_that_arrives_while_nobody_tells_of_changes_is_not_remembered(facts, store):
    hold(store)
    early = await begin(facts.read([A]))
    facts.disconnected()
    store.gate.set()
    _, [leaf] = await early
    assert not leaf.is_current


async def test_a_null_push_forgets_everything(facts, store):
    await values(facts, B)
    hold(store)
    early = await begin(facts.read([A]))
    facts.changed(None)
    late = await begin(facts.read([A]))
    store.gate.set()
    (_, [first]), (_, [second]) = await asyncio.gather(early, late)
    assert (first.is_current, second.is_current) == (False, True)
    assert store.asked == [[B], [A], [A]]
    assert facts.find([B]) is None


async def test_one_passenger_who_leaves_does_not_take_the_others_along(facts, store):
    hold(store)
    store.values[A] = b"1"
    leaving, staying = await begin(values(facts, A)), await begin(values(facts, A))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    store.gate.set()
    assert await staying == [b"1"]


async def test_a_flight_whose_passengers_all_left_lands_all_the_same(facts, store):
    hold(store)
    store.values[A] = b"1"
    leaving = await begin(values(facts, A))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    store.gate.set()
    await asyncio.sleep(0.01)
    assert facts.find([A])[0].value == b"1"
    assert len(store.asked) == 1


async def test_a_flight_that_fails_fails_for_all_and_is_not_remembered(facts, store):
    hold(store)
    store.fault = Unavailable("redis", "gone")
    readers = [await begin(values(facts, A)) for _ in range(3)]
    store.gate.set()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(one) for one in found] == [Unavailable] * 3
    store.fault = None
    assert await values(facts, A) == [None]
    assert facts.cache._reads == set()


async def test_without_a_feed_a_reader_waits_a_moment_and_then_is_told_so(facts):
    facts.disconnected()
    for read in (facts.read, facts.read_afresh):
        with pytest.raises(Unavailable) as unavailable:
            await read([A])
        assert unavailable.value.reason is Reason.NO_LEASE


async def test_a_feed_that_comes_back_in_time_serves_who_waited(facts, store):
    facts.disconnected()
    waiting = await begin(values(facts, A))
    assert store.asked == []
    store.moment = at(3)
    facts.connected(at(3))
    assert await waiting == [None]


async def test_what_is_remembered_is_read_without_a_feed(facts, store):
    store.values[A] = b"1"
    await values(facts, A)
    facts.disconnected()
    assert await values(facts, A) == [b"1"]


async def test_the_generation_of_an_answer_is_the_one_from_before_it_was_read(facts, store):
    hold(store)
    early = await begin(facts.read([A]))
    facts.changed([B])
    facts.applied([(generation, f"ours{generation}") for generation in range(2, 10)])
    store.gate.set()
    assert (await early)[0] == 1
    assert (await facts.read([A]))[0] == 9


async def test_the_last_check_needs_lease_and_unmoved_facts(facts, clock):
    _, leaves = await facts.read([A, B])
    stamp = Stamp(1, tuple(leaves))
    with pytest.raises(Unavailable) as unavailable:
        facts.holds(stamp, 0.0)
    assert unavailable.value.reason is Reason.NO_LEASE
    facts.lease.renewed(sent_at=100.0, generation=1)
    assert facts.holds(stamp, 0.0)
    facts.changed([B])
    assert not facts.holds(stamp, 0.0)
    assert facts.stale_refusals == 1
    clock.time = 101.0
    with pytest.raises(Unavailable):
        facts.holds(stamp, 0.0)
    # A degraded period extends the lease; it does not make a changed fact current.
    assert not facts.holds(stamp, 5.0)
    assert facts.holds(Stamp(1, (leaves[0],)), 5.0)
    clock.time = 106.0
    with pytest.raises(Unavailable):
        facts.holds(stamp, 5.0)


# Another server


FOREIGN = {
    "another mark at the same counter": at(3, "theirs"),
    "an older state": at(2),
    "a counter that is ahead and is never told of": at(5, "theirs"),
    "another history": Moment(history="other", generation=3, mark="ours3"),
}


@pytest.fixture
def followed(facts):
    facts.applied([(2, "ours2"), (3, "ours3")])
    return facts


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("way", ["read", "read_afresh"])
async def test_what_another_server_answers_is_never_remembered_nor_handed_out(
    followed, store, foreign, way, monkeypatch
):
    monkeypatch.setattr(near_facts, "ECHO_SECONDS", 0.02)
    store.moment, store.values[A] = foreign, b"old"
    with pytest.raises(Unavailable) as unavailable:
        await getattr(followed, way)([A])
    assert unavailable.value.reason is Reason.NO_LEASE
    assert followed.find([A]) is None
    assert followed.cache._reads == set()
    assert store.moves == 1 + near_facts.READ_ATTEMPTS  # one by the feed, and one after each reply


async def test_connections_that_are_made_anew_find_the_server_that_is_followed(followed, store):
    store.moment, store.values[A] = at(3, "theirs"), b"old"

    def move():
        store.moment, store.values[A] = at(3), b"new"

    store.move = move
    assert await values(followed, A) == [b"new"]
    assert followed.find([A])[0].value == b"new"


async def test_who_asks_after_a_feed_was_made_anew_does_not_get_what_was_read_before_it(facts, store):
    hold(store)
    store.values[A] = b"old"
    early = await begin(facts.read([A]))
    store.values[A] = b"new"
    facts.connected(at(1))
    late = await begin(facts.read([A]))
    store.gate.set()
    _, (_, [leaf]) = await asyncio.gather(early, late)
    assert (leaf.value, leaf.is_current) == (b"new", True)
    assert await values(facts, A) == [b"new"]


async def test_a_feed_that_is_made_anew_moves_the_connections(facts, store):
    before = store.moves
    facts.disconnected()
    facts.connected(at(7))
    assert store.moves == before + 1


async def test_a_read_that_is_ahead_of_the_feed_waits_until_it_is_told(followed, store):
    store.moment, store.values[A] = at(4), b"new"
    ahead = await begin(followed.read([A]))
    assert not ahead.done()
    followed.changed([B])
    followed.applied([(4, "ours4")])
    _, [leaf] = await ahead
    assert (leaf.value, leaf.is_current) == (b"new", True)
    assert followed._reads_ahead == []


async def test_what_changes_while_it_waits_to_be_told_is_overtaken(followed, store):
    store.moment, store.values[A] = at(4), b"new"
    ahead = await begin(followed.read([A]))
    followed.changed([A])
    followed.applied([(4, "ours4"), (5, "ours5")])
    _, [leaf] = await ahead
    assert not leaf.is_current


async def test_of_an_unknown_history_it_is_said_what_to_do(facts, monkeypatch):
    monkeypatch.setattr(near_facts, "RECONNECT_PATIENCE_SECONDS", 0.01)
    facts.disconnected(is_history_known=False)
    with pytest.raises(Unavailable) as unavailable:
        await facts.read([A])
    assert unavailable.value.why == near_facts.UNKNOWN_HISTORY
    with pytest.raises(Unavailable) as unavailable:
        facts.verify_fresh(0.0)
    assert unavailable.value.why == near_facts.UNKNOWN_HISTORY


async def test_a_history_that_begins_while_it_is_followed_is_the_one(facts, store):
    facts.connected(Moment())
    facts.changed([A])
    facts.applied([(1, "ours1")])
    store.moment, store.values[A] = at(1), b"new"
    assert await values(facts, A) == [b"new"]
    store.moment = Moment(history="other", generation=1, mark="ours1")
    with pytest.raises(Unavailable):
        await facts.read([B])


async def test_few_marks_are_remembered(facts):
    facts.applied([(number, f"ours{number}") for number in range(2, 3 * near_facts.REMEMBERED_MARKS)])
    assert len(facts._marks) == near_facts.REMEMBERED_MARKS
    assert facts.moment == at(3 * near_facts.REMEMBERED_MARKS - 1)


async def test_whatever_may_have_changed_a_record_raises_the_epoch(facts, store):
    """Views of callers are checked only when it was raised: a record that is not cached counts as well."""
    [epoch] = {facts.epoch}
    _, [leaf] = await facts.read([A])
    assert facts.epoch == epoch  # reading changes nothing
    for change in (
        lambda: facts.changed([A]),
        lambda: facts.changed([A]),  # it is no longer cached
        lambda: facts.changed([C]),
        lambda: facts.changed(None),
        lambda: facts.connected(at(2)),
    ):
        before = facts.epoch
        change()
        assert facts.epoch > before
    assert not leaf.is_current


async def test_a_record_that_is_no_longer_current_by_a_change_is_so_in_a_later_epoch(facts, store):
    for change in (lambda: facts.changed([A]), lambda: facts.changed(None), lambda: facts.connected(at(1))):
        _, [leaf] = await facts.read([A])
        epoch = facts.epoch
        assert leaf.is_current
        change()
        assert (leaf.is_current, facts.epoch > epoch) == (False, True)
