from __future__ import annotations

import pytest

from gateway.middleware.meter import Meter
from gateway.model.verdicts import Ending

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 206, "headers": []}


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def metered(*messages, cut=None, is_broken=False):
    meter = Meter(started_at=10.0)
    meter.cut = cut

    async def send(message):
        if is_broken and message["type"] == "http.response.body":
            raise OSError("the client is gone")

    counting = meter.counting(send)
    for message in messages:
        try:
            await counting(message)
        except OSError:
            break
    return meter.outcome(10.25)


async def test_what_was_handed_over_is_counted():
    outcome = await metered(
        START,
        {"type": "http.response.body", "body": b"abc", "more_body": True},
        {"type": "http.response.body", "body": b"de"},
    )
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 206, 5)
    assert outcome.milliseconds == 250.0


async def test_an_answer_without_its_last_piece_is_not_complete():
    outcome = await metered(START, {"type": "http.response.body", "body": b"abc", "more_body": True})
    assert (outcome.ending, outcome.bytes_sent) == (Ending.FAILED, 3)


async def test_what_could_not_be_handed_over_is_not_counted():
    outcome = await metered(START, {"type": "http.response.body", "body": b"abc"}, is_broken=True)
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.FAILED, 206, 0)


async def test_nothing_at_all_has_no_status():
    outcome = await metered()
    assert (outcome.status, outcome.bytes_sent) == (0, 0)


@pytest.mark.parametrize("cut", [Ending.REVOKED, Ending.UNDECIDED, Ending.CHANGED_ON_DISK])
async def test_a_cut_is_the_ending_even_of_an_answer_that_got_to_its_end(cut):
    outcome = await metered(START, {"type": "http.response.body", "body": b"abc"}, cut=cut)
    assert outcome.ending is cut
