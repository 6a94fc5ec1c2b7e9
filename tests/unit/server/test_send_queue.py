"""The send queue: how long all senders together may block the event loop is bounded, and none starves."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.server.send_queue import TURN_STEPS, SendQueue


async def steps_in_each_turn(turns: SendQueue, count: int, steps: int) -> list[list[int]]:
    """Which senders took a step in which event loop iteration."""
    loop = asyncio.get_running_loop()
    seen: list[list[int]] = [[]]
    left = dict.fromkeys(range(count), steps)
    is_over = asyncio.Event()

    def tick():
        seen.append([])
        if any(left.values()):
            loop.call_soon(tick)
        else:
            is_over.set()

    def step(number):
        seen[-1].append(number)
        left[number] -= 1
        return left[number] > 0

    for number in range(count):
        turns.line_up(lambda number=number: step(number), loop)
    loop.call_soon(tick)
    await is_over.wait()
    return seen


@pytest.mark.parametrize("count", [1, TURN_STEPS, 5 * TURN_STEPS])
def test_no_more_steps_are_taken_in_one_turn_than_it_holds(count):
    seen = asyncio.run(steps_in_each_turn(SendQueue(), count, 4))
    assert max(len(numbers) for numbers in seen) == min(count, TURN_STEPS)
    assert sum(len(numbers) for numbers in seen) == 4 * count


def test_every_turn_takes_some_until_nobody_is_left():
    seen = asyncio.run(steps_in_each_turn(SendQueue(), TURN_STEPS, 4))
    assert [len(numbers) for numbers in seen if numbers] == [TURN_STEPS] * 4
    assert len(seen) <= 6


def test_everybody_has_a_step_before_anybody_has_a_second_one():
    seen = asyncio.run(steps_in_each_turn(SendQueue(), 40, 3))
    order = [number for numbers in seen for number in numbers]
    assert order == [*range(40)] * 3


def test_a_line_that_ran_out_is_taken_up_again():
    async def run():
        turns = SendQueue()
        await steps_in_each_turn(turns, 3, 2)
        return await steps_in_each_turn(turns, 3, 2)

    assert sum(len(numbers) for numbers in asyncio.run(run())) == 6


def test_whoever_gives_way_comes_after_those_who_stood_in_line():
    async def run():
        turns, loop = SendQueue(), asyncio.get_running_loop()
        taken = []
        for number in range(3 * TURN_STEPS):
            turns.line_up(lambda number=number: taken.append(number), loop)
        await turns.next(loop)
        return taken

    assert asyncio.run(run()) == [*range(3 * TURN_STEPS)]


def test_many_who_begin_at_once_share_the_turns_as_well():
    async def run():
        turns, loop, taken = SendQueue(), asyncio.get_running_loop(), []
        for number in range(50):
            turns.begin(lambda number=number: taken.append(number), loop)
        seen = [len(taken)]
        while len(taken) < 50:
            await asyncio.sleep(0)
            seen.append(len(taken))
        return taken, [after - before for before, after in pairwise(seen)], seen[0]

    taken, in_turns, at_once = asyncio.run(run())
    assert taken == [*range(50)]
    assert at_once == 1
    assert max(in_turns) <= TURN_STEPS


def test_whoever_is_first_in_a_turn_begins_at_once_again_and_again():
    async def run():
        turns, loop, taken = SendQueue(), asyncio.get_running_loop(), []
        for number in range(5):
            turns.begin(lambda number=number: taken.append(number), loop)
            assert taken[-1] == number
            await asyncio.sleep(0)

    asyncio.run(run())


def test_a_step_that_fails_after_all_holds_nobody_up():
    def fail():
        raise ZeroDivisionError

    async def run():
        turns, loop = SendQueue(), asyncio.get_running_loop()
        heard = []
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        turns.line_up(fail, loop)
        await asyncio.wait_for(turns.next(loop), 5)
        await asyncio.wait_for(turns.next(loop), 5)
        return heard

    assert [type(one) for one in asyncio.run(run())] == [ZeroDivisionError]


def test_a_task_that_is_cancelled_while_it_waits_holds_nobody_up():
    async def run():
        turns, loop = SendQueue(), asyncio.get_running_loop()
        cancelled = asyncio.create_task(turns.next(loop))
        waiting = asyncio.create_task(turns.next(loop))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())
