"""The meter counts what was sent, whichever code produced it and however it was sent."""

from __future__ import annotations

import asyncio

import pytest

from gateway.middleware.meter import Meter
from gateway.model.verdicts import Ending

START = {"type": "http.response.start", "status": 206, "headers": []}


def body(content, *, more=False):
    return {"type": "http.response.body", "body": content, "more_body": more}


def file_span(count, *, more=False):
    place = {"file": 3, "offset": 0, "count": count}
    return {"type": "http.response.zerocopysend", **place, "more_body": more}


def sent_through(meter, *messages, fails_at=None):
    async def send(message):
        if message is fails_at:
            raise ConnectionResetError

    async def run():
        for message in messages:
            await meter.counting(send)(message)

    asyncio.run(run())


def test_ranges_of_files_count_as_bodies_do():
    meter = Meter(10.0)
    sent_through(meter, START, body(b"abc", more=True), file_span(1000, more=True), body(b"de"))
    outcome = meter.outcome(10.5)
    assert (outcome.ending, outcome.status, outcome.bytes_sent) == (Ending.COMPLETE, 206, 1005)
    assert outcome.milliseconds == 500.0


def test_an_answer_has_begun_once_its_head_was_handed_to_the_server_and_not_before():
    meter, head = Meter(0.0), dict(START)
    with pytest.raises(ConnectionResetError):
        sent_through(meter, head, fails_at=head)
    assert meter.began_at is None
    sent_through(meter, START)
    began_at = meter.began_at
    assert began_at is not None
    sent_through(meter, body(b"abc"))
    assert meter.began_at == began_at


def test_an_answer_may_end_with_a_range_of_a_file():
    meter = Meter(0.0)
    sent_through(meter, START, file_span(1000))
    assert meter.is_complete


def test_what_the_server_could_not_send_does_not_count():
    meter, last = Meter(0.0), file_span(500)
    with pytest.raises(ConnectionResetError):
        sent_through(meter, START, file_span(1000, more=True), last, fails_at=last)
    assert meter.bytes_sent == 1000
    assert meter.outcome(1.0).ending is Ending.FAILED


def test_a_server_that_knows_how_much_went_out_is_believed():
    meter, last = Meter(0.0, lambda: 1234), file_span(500)
    with pytest.raises(ConnectionResetError):
        sent_through(meter, START, file_span(1000, more=True), last, fails_at=last)
    assert meter.outcome(1.0).bytes_sent == 1234


def test_nothing_at_all_has_no_status():
    outcome = Meter(0.0).outcome(1.0)
    assert (outcome.status, outcome.bytes_sent, outcome.ending) == (0, 0, Ending.FAILED)


@pytest.mark.parametrize("cut", [Ending.REVOKED, Ending.UNDECIDED, Ending.CHANGED_ON_DISK])
def test_a_cut_is_the_ending_even_of_an_answer_that_got_to_its_end(cut):
    meter = Meter(0.0)
    sent_through(meter, START, body(b"abc"))
    meter.cut = cut
    assert meter.outcome(1.0).ending is cut
