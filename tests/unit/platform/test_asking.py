from __future__ import annotations

import asyncio

import pytest

from gateway.model.errors import Reason, Unavailable
from gateway.platform.asking import (
    MAX_SHARED_QUESTIONS,
    MAX_SHARED_QUESTIONS_FOR_ONE_KEY,
    MAX_SHARED_QUESTIONS_FOR_UNKNOWN_KEYS,
    PATIENCE_SECONDS,
    PLACES,
    PLACES_FOR_ONE_KEY,
    PLACES_FOR_UNKNOWN_KEYS,
    SharedQuestions,
)

pytestmark = pytest.mark.anyio

LOCK = b"a question"


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


class Fleet:
    """The locks that several workers share, and the facts."""

    def __init__(self):
        self.held = {}
        self.facts = set()
        self.asked = []
        self.under_way = self.most_under_way = 0
        self.seconds = 0.0
        self.failure = None

    async def hold(self, lock, holder, *, seconds):
        await asyncio.sleep(0)
        return self.held.setdefault(lock, holder) == holder

    async def release(self, lock, holder):
        if self.held.get(lock) == holder:
            del self.held[lock]

    def worker(self, name="w"):
        return SharedQuestions(self, worker=name)

    async def wait(self, questions, lock=LOCK, *, is_unknown_key=False, key_id=None):
        async def ask():
            self.under_way += 1
            self.most_under_way = max(self.under_way, self.most_under_way)
            self.asked.append(lock)
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.under_way -= 1
            if self.failure:
                raise self.failure
            self.facts.add(lock)

        async def is_answered():
            return lock in self.facts

        await questions.await_answer(
            lock,
            key_id=key_id or lock.decode(),
            is_unknown_key=is_unknown_key,
            ask=ask,
            is_answered=is_answered,
        )


@pytest.fixture
def fleet():
    return Fleet()


async def test_all_who_ask_the_same_share_one_question(fleet):
    fleet.seconds = 0.05
    workers = [fleet.worker(f"w{n}") for n in range(4)]
    await asyncio.gather(*(fleet.wait(worker) for worker in workers for _ in range(50)))
    assert fleet.asked == [LOCK]
    assert fleet.held == {}
    assert not any(map(len, workers))


async def test_what_is_a_fact_by_the_time_that_the_lock_is_ours_is_not_asked(fleet):
    fleet.facts.add(LOCK)
    await fleet.wait(fleet.worker())
    assert fleet.asked == []


async def test_a_failure_is_told_to_all_who_share_it_and_is_not_remembered(fleet):
    fleet.seconds, fleet.failure = 0.01, Unavailable("upstream", "no", Reason.UPSTREAM_UNDECIDED)
    questions = fleet.worker()
    outcomes = await asyncio.gather(*(fleet.wait(questions) for _ in range(9)), return_exceptions=True)
    assert all(isinstance(one, Unavailable) for one in outcomes)
    fleet.failure = None
    await fleet.wait(questions)
    assert fleet.asked == [LOCK, LOCK]
    assert fleet.held == {}


async def test_whoever_leaves_leaves_the_others_waiting(fleet):
    fleet.seconds = 0.05
    questions = fleet.worker()
    first = asyncio.create_task(fleet.wait(questions))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(fleet.wait(questions))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert fleet.asked == [LOCK]


async def test_a_worker_that_died_with_the_lock_costs_the_patience_and_no_more(fleet):
    fleet.held[LOCK] = "somebody who is gone"
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(Unavailable) as caught:
        await fleet.wait(fleet.worker())
    assert loop.time() - began == pytest.approx(PATIENCE_SECONDS)
    assert caught.value.reason is Reason.UPSTREAM_UNDECIDED
    del fleet.held[LOCK]
    await fleet.wait(fleet.worker())


async def test_strangers_take_some_places_and_known_keys_the_rest(fleet):
    fleet.seconds = 0.1
    questions = fleet.worker()
    unknown_keys = [
        asyncio.create_task(fleet.wait(questions, b"s%d" % n, is_unknown_key=True)) for n in range(40)
    ]
    await asyncio.sleep(0.02)
    assert fleet.under_way == PLACES_FOR_UNKNOWN_KEYS
    known = [asyncio.create_task(fleet.wait(questions, b"k%d" % n)) for n in range(40)]
    await asyncio.sleep(0.02)
    assert fleet.under_way == PLACES
    await asyncio.gather(*unknown_keys, *known)
    assert fleet.most_under_way == PLACES


async def test_one_key_takes_some_places_and_others_the_rest(fleet):
    fleet.seconds = 0.05
    questions = fleet.worker()
    greedy = [asyncio.create_task(fleet.wait(questions, b"g%d" % n, key_id="greedy")) for n in range(40)]
    await asyncio.sleep(0.02)
    assert fleet.under_way == PLACES_FOR_ONE_KEY
    await fleet.wait(questions, b"another's")
    await asyncio.gather(*greedy)
    assert not questions._tasks_of_keys


async def test_one_key_may_have_so_many_questions_waiting_and_others_theirs(fleet):
    fleet.seconds = 10
    questions = fleet.worker()
    waiting = [
        asyncio.create_task(fleet.wait(questions, b"g%d" % n, key_id="greedy"))
        for n in range(MAX_SHARED_QUESTIONS_FOR_ONE_KEY)
    ]
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable, match="too many"):
        await fleet.wait(questions, b"one more", key_id="greedy")
    fleet.facts.add(b"another's")
    await fleet.wait(questions, b"another's")
    await questions.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_strangers_that_wait_leave_room_for_known_keys(fleet):
    fleet.seconds = 10
    questions = fleet.worker()
    waiting = [
        asyncio.create_task(fleet.wait(questions, b"s%d" % n, is_unknown_key=True))
        for n in range(MAX_SHARED_QUESTIONS_FOR_UNKNOWN_KEYS)
    ]
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable, match="too many"):
        await fleet.wait(questions, b"one more", is_unknown_key=True)
    fleet.facts.add(b"known")
    await fleet.wait(questions, b"known")
    await questions.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    fleet.facts.add(b"later")
    await fleet.wait(questions, b"later", is_unknown_key=True)


async def test_more_than_may_wait_are_told_so_at_once(fleet):
    fleet.seconds = 10
    questions = fleet.worker()
    waiting = [asyncio.create_task(fleet.wait(questions, b"%d" % n)) for n in range(MAX_SHARED_QUESTIONS)]
    await asyncio.sleep(0.02)
    with pytest.raises(Unavailable, match="too many"):
        await fleet.wait(questions, b"one more")
    await questions.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(questions) == 0
    assert fleet.held == {}
