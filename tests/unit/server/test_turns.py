"""Who sends when: what all senders together hold the event loop up for is bounded."""

from __future__ import annotations

import asyncio

import pytest

from gateway.server.turns import TURN_SENDERS, Turns


async def senders_in_each_turn(turns: Turns, count: int, steps: int) -> list[list[int]]:
    """Which senders took a step in which turn of the event loop."""
    loop = asyncio.get_running_loop()
    seen: list[list[int]] = [[]]
    is_over = False

    def tick():
        seen.append([])
        if not is_over:
            loop.call_soon(tick)

    async def send(number):
        for _ in range(steps):
            seen[-1].append(number)
            await turns.next(loop)

    loop.call_soon(tick)
    await asyncio.gather(*(send(number) for number in range(count)))
    is_over = True
    return seen


@pytest.mark.parametrize("count", [1, TURN_SENDERS, 5 * TURN_SENDERS])
def test_no_more_senders_go_on_in_one_turn_than_it_holds(count):
    seen = asyncio.run(senders_in_each_turn(Turns(), count, 4))
    # The first steps are not after a turn: there, each of them starts.
    assert max(len(numbers) for numbers in seen[2:]) <= TURN_SENDERS
    assert sum(len(numbers) for numbers in seen) == 4 * count


def test_everybody_comes_to_go_on_before_anybody_does_so_twice():
    seen = asyncio.run(senders_in_each_turn(Turns(), 40, 3))
    order = [number for numbers in seen for number in numbers]
    assert order == [*range(40)] * 3


def test_a_sender_that_is_cancelled_while_it_waits_holds_nobody_up():
    async def run():
        turns, loop = Turns(), asyncio.get_running_loop()
        cancelled = asyncio.create_task(turns.next(loop))
        waiting = asyncio.create_task(turns.next(loop))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())
