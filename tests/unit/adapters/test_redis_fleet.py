"""The scripts of lease and barrier on a real server: what they write, return and refuse."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.redis_fleet import (
    FORGET_SECONDS,
    LONGEST_LEASE_SECONDS,
    SETTLED,
    TOUCH,
    WORKERS,
    renew_command,
)
from gateway.adapters.redis_marks import GENERATION, MARKS
from gateway.adapters.redis_store import RedisStore
from gateway.model.errors import NotHeld, UnknownHistory
from gateway.model.stores import GroupSize, Moment

pytestmark = pytest.mark.anyio

LOCK = b"{cachegate}:lock"
FOREIGN = Moment(history="f" * 32, generation=1, mark="f" * 16)


class Notes:
    """The moment that a node noted, in memory."""

    def __init__(self, known=None, later=None):
        self.note = known
        self.later = later or known

    def known(self):
        return self.note

    def reload(self):
        self.note = self.later
        return self.note


async def plan(_snapshot, batch):
    batch.facts[b"{cachegate}:f:t:acme"] = b"1"


async def renew(raw, worker, acknowledged, number=1, note=None, lease=1.0):
    command = renew_command(note, worker.encode(), acknowledged, number, lease_seconds=lease)
    return await raw.execute_command(*command)


async def look(store):
    return await store.look(Moment())


async def test_nobody_is_registered_on_an_empty_server(store):
    fleet = await look(store)
    assert (fleet.workers, fleet.moment, fleet.group) == ((), Moment(), None)
    assert (fleet.attached, fleet.servers, fleet.is_whole) == (0, 1, True)


async def test_a_renewal_registers_and_answers_with_the_moment(store, raw):
    assert await renew(raw, "w", 0) == [1, None, None, None, None]
    _, moment = await store.transact(plan)
    answer = await renew(raw, "w", 6)
    assert answer[:4] == [1, b"1", moment.mark.encode(), moment.history.encode()]
    [worker] = (await look(store)).workers
    assert (worker.worker, worker.applied, worker.silent_seconds) == ("w", 6, 0.0)


async def test_each_worker_has_an_entry_of_its_own_and_the_latest_counts(store, raw):
    for worker, applied in (("a", 1), ("b", 2), ("a", 3)):
        await renew(raw, worker, applied)
    assert {one.worker: one.applied for one in (await look(store)).workers} == {"a": 3, "b": 2}


async def test_an_entry_that_says_nothing_gives_nobody_a_say(store, raw):
    await renew(raw, "good", 1)
    for name, value in (("x", "1"), ("y", "one:2"), ("z", "1:"), ("n", "-1:5"), ("", ":"), ("u", b"\xff:1")):
        await raw.hset(WORKERS, name, value)
    assert [one.worker for one in (await look(store)).workers] == ["good"]


async def test_a_change_is_found_by_its_mark_and_nothing_else_will_do(store):
    _, moment = await store.transact(plan)
    _, later = await store.transact(plan)
    assert (await store.look(moment)).is_ours
    assert (await store.look(later)).is_ours
    for other in (Moment(generation=1, mark=later.mark), Moment(generation=3, mark="0" * 16)):
        assert not (await store.look(other)).is_ours


async def test_a_restart_is_another_stamp_and_a_change_is_not(store, raw):
    before = await look(store)
    await store.transact(plan)
    assert (await look(store)).stamp == before.stamp
    assert before.stamp.endswith((await raw.info("server"))["run_id"])


async def test_what_is_kept_is_kept_under_the_stamp_that_it_was_seen_under(store, raw):
    await renew(raw, "silent", 1, 1)
    await renew(raw, "alive", 1, 1)
    first = await look(store)
    await renew(raw, "alive", 1, 2)
    await store.keep(first, await look(store), 2.5, settles=True)
    found = await look(store)
    assert found.settled == found.stamp
    silent = {one.worker: (one.silent_seconds, one.silent_under) for one in found.workers}
    assert silent == {"silent": (2.5, found.stamp), "alive": (0.0, "")}
    # The silence continues from there, and a renewal resets it.
    await store.keep(found, await look(store), 0.5, settles=False)
    assert {one.silent_seconds for one in (await look(store)).workers} == {3.0, 0.5}
    await renew(raw, "silent", 1, 2)
    assert [one.silent_seconds for one in (await look(store)).workers if one.worker == "silent"] == [0.0]


async def test_two_that_saw_the_same_silence_do_not_add_up(store, raw):
    await renew(raw, "w", 1, 1)
    first = await look(store)
    for seconds, silent in ((1.0, 1.0), (1.2, 1.2), (0.3, 1.2)):
        await store.keep(first, await look(store), seconds, settles=False)
        assert [one.silent_seconds for one in (await look(store)).workers] == [silent]


async def test_between_two_looks_at_different_stamps_nobody_is_known_to_have_been_silent(store, raw):
    await renew(raw, "w", 1, 1)
    last = await look(store)
    await store.keep(replace(last, stamp="another"), last, 9.0, settles=False)
    assert [one.silent_seconds for one in (await look(store)).workers] == [0.0]


async def test_the_longest_lease_of_any_worker_is_known_to_whoever_looks(store, raw):
    assert (await look(store)).lease_seconds == 0.0
    for lease, longest in ((1.0, 1.0), (5.0, 5.0), (0.3, 5.0)):
        await renew(raw, "w", 1, lease=lease)
        assert (await look(store)).lease_seconds == longest
    for unreadable in ("soon", "-5", ""):
        await raw.hset(GENERATION, "lease", unreadable)
        assert (await look(store)).lease_seconds == LONGEST_LEASE_SECONDS


async def test_silence_under_another_stamp_counts_for_nothing(store, raw):
    await raw.hset(WORKERS, "w", "1:1:5000:another")
    [worker] = (await look(store)).workers
    assert (worker.silent_seconds, worker.silent_under) == (5.0, "another")
    first = await look(store)
    await store.keep(first, first, 0.5, settles=False)
    assert [one.silent_seconds for one in (await look(store)).workers] == [0.5]


async def test_one_that_renewed_meanwhile_is_not_overwritten(store, raw):
    await renew(raw, "w", 1, 1)
    first = await look(store)
    last = await look(store)
    await renew(raw, "w", 2, 2)
    await store.keep(first, last, 9.0, settles=False)
    assert await raw.hget(WORKERS, "w") == b"2:2"


async def test_the_long_silent_are_taken_off(store, raw):
    await renew(raw, "w", 1, 1)
    first = await look(store)
    await store.keep(first, first, FORGET_SECONDS + 1, settles=False)
    assert (await look(store)).workers == ()


async def test_nothing_is_kept_of_a_server_that_has_another_stamp_by_now(store, raw):
    await renew(raw, "w", 1, 1)
    seen = replace(await look(store), stamp="another")
    await store.keep(seen, seen, 1.0, settles=True)
    assert await raw.get(SETTLED) is None
    assert await raw.hget(WORKERS, "w") == b"1:1"


async def test_workers_leave_by_name(store, raw):
    for worker in ("a", "b"):
        await renew(raw, worker, 1)
    await store.leave("a")
    await store.leave("never there")
    assert [one.worker for one in (await look(store)).workers] == ["b"]


async def test_a_lock_has_one_holder_until_it_ends_by_itself(store, raw):
    assert await store.hold(LOCK, "a", seconds=10)
    assert not await store.hold(LOCK, "b", seconds=10)
    assert await store.hold(LOCK, "a", seconds=10)
    await raw.pexpire(LOCK, 1)
    while await raw.exists(LOCK):
        pass
    assert await store.hold(LOCK, "b", seconds=10)
    assert 9_000 < await raw.pttl(LOCK) <= 10_000


async def test_nothing_that_the_barrier_reads_ends_by_the_clock_of_the_server(store, raw):
    # A step of that clock would take a worker out of the register that can still answer.
    await store.transact(plan)
    await renew(raw, "w", 1)
    first = await look(store)
    await store.keep(first, first, 1.0, settles=True)
    for name in (WORKERS, SETTLED, GENERATION, *await raw.keys(MARKS + b"*")):
        assert await raw.pttl(name) == -1, name


async def test_a_change_is_held_when_every_server_of_the_group_has_it(store, raw):
    async def grows(_snapshot, batch):
        batch.group = GroupSize(servers=2)

    _, moment = await store.transact(plan)
    await store.hold_by_all(moment)
    assert await raw.get(TOUCH) is None  # with one server, nothing is written to wait for
    _, later = await store.transact(grows)
    with pytest.raises(NotHeld) as missing:
        await store.hold_by_all(later, seconds=0.01)
    assert "held by 1 of 2 servers" in missing.value.why
    with pytest.raises(NotHeld):
        await store.hold_by_all(Moment(generation=1, mark="0" * 16), seconds=0.01)


WRITERS = {
    "transact": lambda store: store.transact(plan),
    "put_hash": lambda store: store.put_hash(b"{cachegate}:u:ab", {b"k": b"1"}),
    "put_for": lambda store: store.put_for({b"{cachegate}:sealed:a": b"1"}, 60),
    "hold": lambda store: store.hold(LOCK, "a", seconds=10),
    "verify_history": lambda store: store.verify_history(),
}


async def keep_seen(store):
    found = await store.look(Moment())
    await store.keep(found, found, 1.0, settles=True)


async def prompt(store):
    await store.look(Moment())  # finds the size of the group
    await store.look(Moment(), prompts=True)


SILENT_WRITERS = {
    "let_go": lambda store: store.release(LOCK, "holder"),
    "leave": lambda store: store.leave("w"),
    "keep": keep_seen,
    "look": lambda store: store.look(Moment(), hold_seconds=0.05),  # long enough for prompts
    "prompt": prompt,
}


async def read_all(raw):
    return {name: await raw.dump(name) for name in await raw.keys("*")}


@pytest.fixture
async def stored_data(store, raw):
    """A server with data that every writer would change."""

    async def grows(_snapshot, batch):
        batch.group = GroupSize(servers=2)  # so that an observation has replicas to wait for

    await store.transact(plan)
    await store.transact(grows)
    await store.put_hash(b"{cachegate}:u:ab", {b"k": b"0"})
    await renew(raw, "w", 1)
    await store.hold(LOCK, "holder", seconds=1000)
    await raw.persist(LOCK)
    return await read_all(raw)


@pytest.mark.parametrize("writer", [*WRITERS, *SILENT_WRITERS])
async def test_no_writer_writes_where_the_history_is_not_the_one(valkey_url, raw, stored_data, writer):
    foreign_store = RedisStore(valkey_url, history=Notes(FOREIGN))
    try:
        if writer in WRITERS:
            with pytest.raises(UnknownHistory):
                await WRITERS[writer](foreign_store)
        else:
            await SILENT_WRITERS[writer](foreign_store)
        answer = await renew(raw, "x", 1, note=FOREIGN)
        assert answer[0] == 0
        assert await read_all(raw) == stored_data
    finally:
        await foreign_store.close()


@pytest.mark.parametrize("writer", WRITERS)
async def test_once_it_is_accepted_on_disk_every_writer_goes_on(valkey_url, store, stored_data, writer):
    present = await store.moment()
    accepted = RedisStore(valkey_url, history=Notes(FOREIGN, later=present))
    try:
        await WRITERS[writer](accepted)
    finally:
        await accepted.close()


async def test_a_server_that_counted_on_without_our_change_is_another_history(valkey_url, store, raw):
    # A copy from before a change, with as many other changes since: same history id, higher counter.
    await store.transact(plan)
    saved = {name: await raw.dump(name) for name in await raw.keys("*")}
    _, noted = await store.transact(plan)
    knowing = RedisStore(valkey_url, history=Notes(noted))
    await knowing.verify_history()
    for name in await raw.keys("*"):
        await raw.delete(name)
    for name, value in saved.items():
        await raw.restore(name, 0, value)
    for _ in range(600):  # beyond the block that held the mark
        await store.transact(plan)
    with pytest.raises(UnknownHistory):
        await knowing.verify_history()
    with pytest.raises(UnknownHistory):
        await knowing.transact(plan)
    await knowing.close()


async def test_a_note_from_before_there_were_marks_goes_by_history_and_counter(valkey_url, store):
    _, present = await store.transact(plan)
    for note, is_known in (
        (Moment(history=present.history, generation=1), True),
        (Moment(history=present.history, generation=2), False),
        (Moment(history="f" * 32, generation=1), False),
    ):
        asking = RedisStore(valkey_url, history=Notes(note))
        if is_known:
            await asking.verify_history()
        else:
            with pytest.raises(UnknownHistory):
                await asking.verify_history()
        await asking.close()
