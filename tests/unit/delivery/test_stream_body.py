"""Bodies that come from elsewhere: each piece as it comes, and the end where it was announced."""

from __future__ import annotations

import asyncio

import pytest

from gateway.delivery.stream_body import send_stream
from gateway.model.answers import Streamed
from gateway.model.verdicts import Ending

START = {"type": "http.response.start", "status": 200, "headers": []}


async def close():
    raise AssertionError("whoever sends the answer closes it")


def stream(*pieces, length=None, before=None):
    """A body of these pieces; `before[n]` is called before the n-th."""

    async def come():
        for number, piece in enumerate(pieces):
            if before and number in before:
                before[number]()
                await asyncio.sleep(0)
            yield piece

    return Streamed(pieces=come(), length=length, close=close, ending=Ending.RELAYED)


def send(make, *, fails_at=None):
    """How it ended, and the messages that were sent."""

    async def main():
        sent, gone = [], asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def keep(message):
            if len(sent) == fails_at:
                raise ConnectionResetError
            sent.append(message)

        ending = await send_stream(START, make(gone), receive, keep)
        for _ in range(3):  # a task that was cancelled ends in one of the next iterations
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return ending, [(one["body"], one["more_body"]) for one in sent[1:]]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("pieces", "length", "messages"),
    [
        ((b"a", b"b"), 2, [(b"a", True), (b"b", False)]),
        ((b"a", b"b"), None, [(b"a", True), (b"b", True), (b"", False)]),
        ((), 0, [(b"", False)]),
        ((), None, [(b"", False)]),
        ((b"ab", b"never sent"), 2, [(b"ab", False)]),
    ],
)
def test_the_piece_that_completes_the_announced_length_is_the_last(pieces, length, messages):
    """A client that has all of it may close: nothing that is sent after it could then be told of."""
    assert send(lambda _: stream(*pieces, length=length)) == (Ending.RELAYED, messages)


def test_a_client_that_has_gone_is_sent_nothing_more():
    ending, messages = send(lambda gone: stream(b"a", b"b", b"c", before={1: gone.set}))
    assert (ending, messages) == (Ending.CLIENT_GONE, [(b"a", True)])


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_connection_that_is_lost_is_a_client_that_has_gone(fails_at):
    ending, messages = send(lambda _: stream(b"a", b"b"), fails_at=fails_at)
    assert (ending, len(messages)) == (Ending.CLIENT_GONE, fails_at - 1)
