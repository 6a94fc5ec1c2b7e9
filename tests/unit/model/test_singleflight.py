"""Singleflight: one task for all who wait, and no overtaken result for those who joined it."""

import asyncio
import gc
from dataclasses import dataclass, field

import pytest

from gateway.model.errors import Unavailable
from gateway.model.singleflight import Singleflight

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


@dataclass
class Result:
    number: int
    is_current: bool = True


@dataclass
class Work:
    """Tasks that finish when the test lets them."""

    gates: list[asyncio.Event] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    failure: Exception | None = None

    def begin(self, keys):
        gate, result = asyncio.Event(), Result(len(self.results))
        self.gates.append(gate)
        self.results.append(result)
        self.asked.append(list(keys))
        return self._run(gate, result)

    async def _run(self, gate, result):
        await gate.wait()
        if self.failure is not None:
            raise self.failure
        return result


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def flights():
    return Singleflight(lambda _, result: result.is_current)


async def begin(awaitable):
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(0)
    return task


def ask(flights, work, *keys):
    return begin(flights.run_many(keys, work.begin))


async def test_all_who_come_meanwhile_share_one_task(flights, work):
    callers = [await ask(flights, work, "a") for _ in range(3)]
    work.gates[0].set()
    assert [(await one)["a"].number for one in callers] == [0, 0, 0]
    assert len(flights) == 0


async def test_a_task_is_begun_before_anything_is_awaited(flights, work):
    """The caller may have to give it something that is gone later, such as a duplicate of a descriptor."""
    running = flights.run("a", lambda: work.begin(["a"]))
    running.send(None)
    assert work.asked == [["a"]]
    running.close()
    await flights.close()


async def test_who_joined_an_overtaken_task_waits_for_one_that_began_after_it_came(flights, work):
    first = await ask(flights, work, "a")
    joined = [await ask(flights, work, "a") for _ in range(2)]
    work.results[0].is_current = False
    work.gates[0].set()
    assert (await first)["a"].number == 0  # it came before its task began: nothing it read is older than it
    await asyncio.sleep(0)
    assert not any(one.done() for one in joined)
    assert work.asked == [["a"], ["a"]]
    work.results[1].is_current = False  # overtaken as well, but not by a change before these callers
    work.gates[1].set()
    assert [(await one)["a"].number for one in joined] == [1, 1]


async def test_a_task_that_has_just_ended_and_is_overtaken_is_not_used_by_who_comes_then(flights, work):
    first = await ask(flights, work, "a")

    async def come_at_once():  # woken with the task, before its end is noticed
        await work.gates[0].wait()
        work.results[0].is_current = False
        assert "a" in flights
        return await flights.run_many(["a"], work.begin)

    coming = await begin(come_at_once())
    work.gates[0].set()
    await first
    work.gates[1].set()
    assert (await coming)["a"].number == 1


async def test_nobody_joins_a_task_that_was_forgotten(flights, work):
    first = await ask(flights, work, "a", "b")
    flights.forget(["a"])
    assert ("a" in flights, "b" in flights) == (False, True)
    second = await ask(flights, work, "a", "b")
    assert work.asked == [["a", "b"], ["a"]]
    flights.forget()
    third = await ask(flights, work, "b")
    for gate in work.gates:
        gate.set()
    assert {key: one.number for key, one in (await first).items()} == {"a": 0, "b": 0}
    assert {key: one.number for key, one in (await second).items()} == {"a": 1, "b": 0}
    assert (await third)["b"].number == 2
    assert len(flights) == 0


async def test_the_end_of_a_forgotten_task_leaves_its_successor(flights, work):
    first = await ask(flights, work, "a")
    flights.forget(["a"])
    second = await ask(flights, work, "a")
    work.gates[0].set()
    await first
    assert "a" in flights
    work.gates[1].set()
    await second


async def test_several_keys_are_asked_for_by_one_task_and_each_is_joined_alone(flights, work):
    first = await ask(flights, work, "a", "b", "a")
    second = await ask(flights, work, "b", "c")
    assert work.asked == [["a", "b"], ["c"]]
    work.results[0].is_current = False
    for gate in work.gates:
        gate.set()
    await first
    await asyncio.sleep(0)
    assert work.asked[2:] == [["b"]]
    work.gates[2].set()
    assert {key: one.number for key, one in (await second).items()} == {"b": 2, "c": 1}


async def test_a_cancelled_caller_leaves_the_task_to_the_others(flights, work):
    first, second = await ask(flights, work, "a"), await ask(flights, work, "a")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    work.gates[0].set()
    assert (await second)["a"].number == 0


async def test_a_failure_is_every_callers_and_nobody_has_to_hear_of_it(flights, work, caplog):
    callers = [await ask(flights, work, "a") for _ in range(2)]
    work.failure = Unavailable("redis", "gone")
    work.gates[0].set()
    assert [type(one) for one in await asyncio.gather(*callers, return_exceptions=True)] == [Unavailable] * 2
    left = await ask(flights, work, "a")
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    work.gates[1].set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(flights) == 0
    gc.collect()
    assert caplog.text == ""


async def test_closing_cancels_what_is_under_way(flights, work):
    caller = await ask(flights, work, "a")
    await flights.close()
    assert isinstance((await asyncio.gather(caller, return_exceptions=True))[0], asyncio.CancelledError)
    assert len(flights) == 0
