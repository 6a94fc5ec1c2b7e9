"""Work ends with its client, and only then."""

from __future__ import annotations

import asyncio

import pytest

from gateway.middleware.staying_client import while_client_stays
from gateway.transfers import ClientGoneError


class Waiting:
    """Work and a client, each of which ends when a test says so."""

    def __init__(self):
        self.answered, self.left, self.is_watched = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.was_cancelled = False
        self.task = asyncio.ensure_future(while_client_stays(self.work(), self.client_leaves))

    async def work(self):
        try:
            await self.answered.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return "the answer"

    async def client_leaves(self):
        self.is_watched.set()
        await self.left.wait()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_what_is_answered_soon_is_not_watched():
    waiting = Waiting()
    waiting.answered.set()
    assert await waiting.task == "the answer"
    assert not waiting.is_watched.is_set()


@pytest.mark.anyio
async def test_what_is_answered_later_is_returned_and_no_longer_watched():
    waiting = Waiting()
    await waiting.is_watched.wait()
    waiting.answered.set()
    assert await waiting.task == "the answer"
    waiting.left.set()  # nobody is left to be told
    assert waiting.task.cancelling() == 0


@pytest.mark.anyio
async def test_the_work_ends_when_the_client_leaves():
    waiting = Waiting()
    await waiting.is_watched.wait()
    waiting.left.set()
    with pytest.raises(ClientGoneError):
        await waiting.task
    assert waiting.was_cancelled
    assert waiting.task.cancelling() == 0


@pytest.mark.anyio
async def test_a_client_that_cannot_be_asked_has_left():
    async def fail():
        raise OSError

    with pytest.raises(ClientGoneError):
        await asyncio.ensure_future(while_client_stays(asyncio.Event().wait(), fail))


@pytest.mark.anyio
async def test_who_is_cancelled_by_somebody_else_is_cancelled_though_the_client_left_as_well():
    waiting = Waiting()
    await waiting.is_watched.wait()
    waiting.left.set()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.was_cancelled


@pytest.mark.anyio
async def test_a_client_that_leaves_as_its_answer_is_there_cancels_nothing_that_comes_after():
    answered, left, is_watched = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def client_leaves():
        is_watched.set()
        await left.wait()

    async def request():
        await while_client_stays(answered.wait(), client_leaves)
        for _ in range(5):
            await asyncio.sleep(0)
        return "delivered"

    task = asyncio.ensure_future(request())
    await is_watched.wait()
    left.set()  # before the other: whoever leaves is told first
    answered.set()
    assert await task == "delivered"
