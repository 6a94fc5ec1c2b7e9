"""Transfers to clients that are gone are not complete; without a stall clock a step has a time limit."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.model.verdicts import Ending, Receipt
from gateway.transfers import ClientEnd, TransferCutError, Transfers
from tests import samples

STALL_SECONDS = 0.1
LAST = {"type": "http.response.body", "body": b"x"}
STEP = {**LAST, "more_body": True}
PRINCIPAL = samples.principal()


class Facts:
    """A directory and a key that are valid."""

    def is_fresh(self, degraded_seconds):
        return True

    def is_in_time(self, principal, now):
        return True

    def now(self):
        return 0.0


class Client:
    """A client's connection that the test can close."""

    def __init__(self, *, has_stall_clock=False):
        self.has_stall_clock = has_stall_clock
        self.is_gone = self.was_aborted = False
        self.room = asyncio.Event()

    def abort(self):
        self.was_aborted = True

    @property
    def end(self):
        return ClientEnd(
            drained=self.room.wait,
            abort=self.abort,
            has_gone=lambda: self.is_gone,
            has_stall_clock=self.has_stall_clock,
        )


def receipt():
    admission = samples.admission(PRINCIPAL, request=samples.wire_request(client=""))
    return Receipt(record_id="r", admission=admission, on_close=lambda outcome: None)


@asynccontextmanager
async def watched():
    facts = Facts()
    transfers = Transfers(identity=facts, directory=facts, clock=facts, stall_seconds=STALL_SECONDS)
    watch = asyncio.create_task(transfers.watch())
    try:
        yield transfers
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def hand_over(client, message, send):
    """How a transfer of this one message ended."""
    async with watched() as transfers, transfers.under_way(receipt(), client.end) as transfer:
        await transfer.hand_over(message, send)
    return transfer.cut


async def at_once(_message):
    return


@pytest.mark.parametrize("message", [STEP, LAST], ids=["a step", "the last step"])
def test_where_the_server_has_no_stall_clock_a_step_has_its_time(message, run_in_virtual_time):
    async def scenario():
        client = Client()
        never = asyncio.Event()

        async def send(_message):
            if message is STEP:
                await never.wait()

        assert await hand_over(client, message, send) is Ending.CLIENT_GONE
        assert client.was_aborted

    run_in_virtual_time(scenario())


@pytest.mark.parametrize("message", [STEP, LAST], ids=["a step", "the last step"])
def test_where_the_server_has_one_it_is_the_servers_matter(message, run_in_virtual_time):
    async def scenario():
        client = Client(has_stall_clock=True)

        async def send(_message):
            await asyncio.sleep(3 * STALL_SECONDS)
            client.room.set()

        assert await hand_over(client, message, send) is None
        assert not client.was_aborted

    run_in_virtual_time(scenario())


def test_a_time_out_of_the_servers_own_is_not_taken_for_that(run_in_virtual_time):
    async def scenario():
        async def send(_message):
            raise TimeoutError

        with pytest.raises(TimeoutError):
            await hand_over(Client(), STEP, send)

    run_in_virtual_time(scenario())


def test_what_takes_time_between_two_steps_is_not_the_clients_doing(run_in_virtual_time):
    async def scenario():
        client = Client()
        client.room.set()
        async with watched() as transfers, transfers.under_way(receipt(), client.end) as transfer:
            await transfer.hand_over(STEP, at_once)
            await asyncio.sleep(3 * STALL_SECONDS)
            await transfer.hand_over(LAST, at_once)
        assert transfer.cut is None

    run_in_virtual_time(scenario())


def test_a_client_that_left_before_the_last_step_is_not_sent_it(run_in_virtual_time):
    async def scenario():
        client = Client()
        client.is_gone = True
        sent = []

        async def send(message):
            sent.append(message)

        assert await hand_over(client, LAST, send) is Ending.CLIENT_GONE
        assert sent == []

    run_in_virtual_time(scenario())


def test_a_client_that_left_during_the_last_step_did_not_get_it_whole(run_in_virtual_time):
    async def scenario():
        client = Client()
        client.room.set()

        async def send(_message):
            client.is_gone = True

        assert await hand_over(client, LAST, send) is Ending.CLIENT_GONE

    run_in_virtual_time(scenario())


def test_a_server_that_tells_nothing_of_its_client_is_done_without(run_in_virtual_time):
    async def scenario():
        async with watched() as transfers, transfers.under_way(receipt(), ClientEnd()) as transfer:
            await transfer.hand_over(LAST, at_once)
        assert transfer.cut is None

    run_in_virtual_time(scenario())


def test_a_cut_leaves_the_app(run_in_virtual_time):
    async def scenario():
        client = Client()
        client.is_gone = True
        async with watched() as transfers, transfers.under_way(receipt(), client.end) as transfer:
            with pytest.raises(TransferCutError):
                await transfer.hand_over(LAST, at_once)

    run_in_virtual_time(scenario())
