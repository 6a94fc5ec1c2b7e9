"""Background tasks: a failure of one is reported by its name, it is restarted, and the others go on."""

from __future__ import annotations

import asyncio

import pytest

from gateway.chores import LONGEST_PAUSE_SECONDS, RECOVERED_SECONDS, Chores, EndedError

pytestmark = pytest.mark.anyio


class Sleeper:
    """A `sleep` that lasts until the test ends it, and keeps its duration."""

    def __init__(self):
        self.asked = []
        self._waiting = []

    async def __call__(self, seconds):
        wakes = asyncio.Event()
        self.asked.append(seconds)
        self._waiting.append((seconds, wakes))
        await wakes.wait()

    async def wake(self, seconds=None):
        """End the sleeps of this duration, or all, and run the tasks until their next sleep."""
        for one in list(self._waiting):
            if seconds is None or one[0] == seconds:
                self._waiting.remove(one)
                one[1].set()
        await determine()


async def determine():
    for _ in range(20):
        await asyncio.sleep(0)


class World:
    def __init__(self):
        self.sleep = Sleeper()
        self.failed = []
        self.chores = Chores(
            lambda name, failure, pause: self.failed.append((name, type(failure), pause)), sleep=self.sleep
        )


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.chores.close()


class TestKept:
    async def test_what_it_raises_is_told_by_its_name_and_it_is_begun_again(self, world):
        begun = asyncio.Queue()

        async def work():
            begun.put_nowait(None)
            raise struct_error()

        world.chores.keep("pins", work)
        await determine()
        assert [(name, kind) for name, kind, _ in world.failed] == [("pins", StructError)]
        assert (begun.qsize(), world.chores.down) == (1, ("pins",))
        await world.sleep.wake()
        assert begun.qsize() == 2

    async def test_one_that_returns_has_failed_as_well(self, world):
        async def work():
            return

        world.chores.keep("pins", work)
        await determine()
        assert [(name, kind) for name, kind, _ in world.failed] == [("pins", EndedError)]

    async def test_one_whose_own_work_was_cancelled_is_begun_again(self, world):
        async def work():
            inner = asyncio.ensure_future(asyncio.sleep(60))
            inner.cancel()
            await inner

        world.chores.keep("pins", work)
        await determine()
        assert [(name, kind) for name, kind, _ in world.failed] == [("pins", EndedError)]

    async def test_the_pauses_grow_up_to_a_bound(self, world):
        async def work():
            raise struct_error()

        world.chores.keep("pins", work)
        await determine()
        for _ in range(12):
            await world.sleep.wake()
        pauses = [pause for _, _, pause in world.failed]
        assert pauses == sorted(pauses)
        assert len(set(pauses)) > 3
        assert pauses[-1] == LONGEST_PAUSE_SECONDS

    async def test_it_is_up_again_once_it_has_run_for_a_while_and_not_before(self, world):
        is_broken = True

        async def work():
            if is_broken:
                raise struct_error()
            await asyncio.Event().wait()

        world.chores.keep("pins", work)
        await determine()
        is_broken = False
        [pause] = [pause for _, _, pause in world.failed]
        await world.sleep.wake(pause)
        assert world.chores.down == ("pins",)
        await world.sleep.wake(RECOVERED_SECONDS)
        assert world.chores.down == ()

    async def test_one_that_fails_early_each_time_never_counts_as_up(self, world):
        async def work():
            raise struct_error()

        world.chores.keep("pins", work)
        for _ in range(5):
            await determine()
            assert world.chores.down == ("pins",)
            await world.sleep.wake()

    async def test_the_others_go_on(self, world):
        rounds = []

        async def work():
            raise struct_error()

        async def make_round():
            rounds.append(None)

        world.chores.keep("pins", work)
        world.chores.every("policy", 1.0, make_round)
        await determine()
        await world.sleep.wake(1.0)
        assert (len(rounds), world.chores.down) == (1, ("pins",))

    async def test_closing_ends_it_and_tells_nobody(self, world):
        async def work():
            await asyncio.Event().wait()

        world.chores.keep("pins", work)
        await determine()
        await world.chores.close()
        assert (world.failed, world.chores.down) == ([], ())


class TestRounds:
    async def test_a_round_that_fails_is_told_and_the_next_is_made(self, world):
        rounds = []

        async def make_round():
            rounds.append(None)
            if len(rounds) == 1:
                raise struct_error()

        world.chores.every("audit", 1.0, make_round)
        await determine()
        await world.sleep.wake()
        assert [(name, kind) for name, kind, _ in world.failed] == [("audit", StructError)]
        assert world.chores.down == ("audit",)
        await world.sleep.wake()
        assert (len(rounds), world.chores.down) == (2, ())

    async def test_the_pause_between_failing_rounds_grows_up_to_a_bound_and_is_as_before_after_a_good_one(
        self, world
    ):
        is_broken = True

        async def make_round():
            if is_broken:
                raise struct_error()

        world.chores.every("lease", 0.1, make_round)
        await determine()
        for _ in range(12):
            await world.sleep.wake()
        assert world.sleep.asked[-1] == LONGEST_PAUSE_SECONDS
        is_broken = False
        await world.sleep.wake()
        assert world.sleep.asked[-1] == 0.1

    async def test_a_round_whose_own_work_was_cancelled_has_failed(self, world):
        async def make_round():
            raise asyncio.CancelledError

        world.chores.every("audit", 1.0, make_round)
        await determine()
        await world.sleep.wake()
        assert [(name, kind) for name, kind, _ in world.failed] == [("audit", EndedError)]
        assert len(world.sleep.asked) == 2


class StructError(Exception):
    """An unexpected exception."""


def struct_error():
    return StructError("argument out of range")
