"""Transfers being watched, while the test ends their key or lease."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway import transfers as module
from gateway.model.access import Action
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import Ending, Receipt
from gateway.transfers import ClientEnd, Transfers
from tests import samples

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(virtual_time):
    return virtual_time


PRINCIPAL = samples.principal()


class Facts:
    """The record of the key, the lease, and the store behind them."""

    def __init__(self):
        self.leaf = Leaf(b"key", b"1")
        self.is_leased = True
        self.answer = None  # what `reauthenticate` raises
        self.asked = 0
        self.delay = 0.0
        self.time = 1.0
        self.principal = PRINCIPAL  # as its record says now

    def is_fresh(self, degraded_seconds):
        return self.is_leased or degraded_seconds > 0

    def verify_fresh(self, degraded_seconds):
        if not self.is_fresh(degraded_seconds):
            raise Unavailable("redis", "no lease", Reason.NO_LEASE)

    async def reauthenticate(self, stamp, client, now):
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.answer is not None:
            raise self.answer
        if not self.is_in_time(self.principal, now):
            raise Refusal(Reason.EXPIRED_KEY)
        return self.principal, Stamp(2, (self.leaf,))

    def is_in_time(self, principal, now):
        return principal.key_ends_at is None or now < principal.key_ends_at

    def now(self):
        return self.time

    def move(self, answer=None):
        self.answer = answer
        self.leaf.is_current = False
        self.leaf = Leaf(b"key", b"2")


@pytest.fixture
def facts():
    return Facts()


@pytest.fixture
def transfers(facts):
    return Transfers(identity=facts, directory=facts, clock=facts)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)


def receipt(facts, **more):
    principal = facts.principal = replace(PRINCIPAL, **more)
    admission = samples.admission(principal, action=Action.IDENTIFY, stamp=Stamp(1, (facts.leaf,)))
    return Receipt(record_id="r", admission=admission, on_close=lambda _outcome: None)


class Response:
    """A response that sends step after step, or waits for a slow reader."""

    def __init__(self, transfers, a_receipt, *, is_slow=False):
        self.aborted = 0
        self.steps = 0
        self.transfer = None
        self.begun = asyncio.Event()
        self.stepped = asyncio.Condition()
        self.task = asyncio.create_task(self._send(transfers, a_receipt, is_slow))

    async def _send(self, transfers, a_receipt, is_slow):
        async with transfers.under_way(a_receipt, ClientEnd(abort=self._abort)) as self.transfer:
            while True:
                self.begun.set()
                if is_slow:
                    await asyncio.sleep(60)
                await self.transfer.verify()
                self.steps += 1
                async with self.stepped:
                    self.stepped.notify_all()
                await asyncio.sleep(0.005)
        return "ended without an error"

    async def more_than(self, steps):
        """Once it has taken more steps than that."""
        async with asyncio.timeout(10), self.stepped:
            await self.stepped.wait_for(lambda: self.steps > steps + 1)

    def _abort(self):
        self.aborted += 1

    async def cut(self):
        async with asyncio.timeout(10):
            assert await self.task == "ended without an error"
        assert self.aborted >= 1
        return self.transfer.cut


@pytest.fixture
async def watching(transfers):
    watch = asyncio.create_task(transfers.watch())
    yield transfers
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def end(response):
    response.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await response.task


async def test_an_undisturbed_transfer_goes_on_and_asks_nobody(watching, facts):
    response = Response(watching, receipt(facts))
    await asyncio.sleep(0.1)
    assert response.steps > 5
    assert facts.asked == 0
    assert len(watching) == 1
    await end(response)
    assert len(watching) == 0


@pytest.mark.parametrize("is_slow", [False, True], ids=["at its next step", "while its reader sleeps"])
@pytest.mark.parametrize("reason", [Reason.REVOKED_KEY, Reason.SUSPENDED_TENANT, Reason.UNKNOWN_KEY])
async def test_a_transfer_ends_with_its_key(watching, facts, is_slow, reason):
    response = Response(watching, receipt(facts), is_slow=is_slow)
    await asyncio.sleep(0.02)
    facts.move(Refusal(reason))
    assert await response.cut() is Ending.REVOKED
    assert len(watching) == 0


@pytest.mark.parametrize(
    ("reason", "ending"),
    [
        (Reason.EXPIRED_KEY, Ending.EXPIRED),
        (Reason.NOT_YET_VALID, Ending.NOT_YET_VALID),
        (Reason.OUTSIDE_NETWORKS, Ending.OUTSIDE_NETWORKS),
        (Reason.UNREADABLE_KEY, Ending.REVOKED),
    ],
)
async def test_the_outcome_says_why_a_key_no_longer_holds(watching, facts, reason, ending):
    response = Response(watching, receipt(facts))
    await response.begun.wait()
    facts.move(Refusal(reason))
    assert await response.cut() is ending


@pytest.mark.parametrize("is_slow", [False, True], ids=["at its next step", "while its reader sleeps"])
async def test_a_transfer_ends_with_the_time_of_its_key_though_no_record_moved(watching, facts, is_slow):
    response = Response(watching, receipt(facts, key_ends_at=100.0), is_slow=is_slow)
    await response.begun.wait()
    facts.time = 99.9
    assert response.transfer.is_certain
    facts.time = 100.0
    assert not response.transfer.is_certain  # nothing is awaited: no further step is sent
    assert await response.cut() is Ending.EXPIRED


async def test_the_end_of_a_link_is_not_the_end_of_a_transfer_that_it_began(watching, facts):
    response = Response(watching, receipt(facts, expires_at=50.0, is_link=True, key_ends_at=100.0))
    await response.begun.wait()
    facts.time = 99.0
    steps = response.steps
    await response.more_than(steps)
    assert response.transfer.cut is None
    assert facts.asked == 0
    facts.time = 100.0
    assert await response.cut() is Ending.EXPIRED


async def test_an_expiry_that_was_brought_forward_meanwhile_counts(watching, facts):
    response = Response(watching, receipt(facts))
    await response.begun.wait()
    facts.principal = replace(facts.principal, key_ends_at=50.0)
    facts.move()
    await response.more_than(response.steps)
    assert response.transfer.cut is None
    facts.time = 50.0
    assert await response.cut() is Ending.EXPIRED


async def test_a_degraded_time_that_was_taken_away_meanwhile_counts(watching, facts):
    response = Response(watching, receipt(facts, degraded_seconds=60.0))
    await response.begun.wait()
    facts.principal = replace(facts.principal, degraded_seconds=0.0)
    facts.move()
    await response.more_than(response.steps)
    facts.is_leased = False
    assert not response.transfer.is_certain
    assert await response.cut() is Ending.UNDECIDED


async def test_a_record_that_changed_otherwise_lets_it_go_on(watching, facts):
    response = Response(watching, receipt(facts))
    await asyncio.sleep(0.02)
    facts.move()
    steps = response.steps
    await asyncio.sleep(0.1)
    assert response.steps > steps
    assert response.transfer.cut is None
    await end(response)


@pytest.mark.parametrize("is_slow", [False, True])
async def test_nothing_more_is_handed_out_without_a_lease_and_in_the_end_it_is_cut(watching, facts, is_slow):
    response = Response(watching, receipt(facts), is_slow=is_slow)
    await asyncio.sleep(0.02)
    facts.is_leased = False
    await asyncio.sleep(0.02)
    steps = response.steps
    assert await response.cut() is Ending.UNDECIDED
    assert response.steps == steps


async def test_a_lease_that_comes_back_in_time_lets_it_go_on(watching, facts):
    response = Response(watching, receipt(facts))
    await asyncio.sleep(0.02)
    facts.is_leased = False
    await asyncio.sleep(0.05)
    steps = response.steps
    facts.is_leased = True
    await asyncio.sleep(0.1)
    assert response.steps > steps
    assert response.transfer.cut is None
    await end(response)


async def test_a_degraded_tenant_is_served_on(watching, facts):
    response = Response(watching, receipt(facts, degraded_seconds=60.0))
    facts.is_leased = False
    await asyncio.sleep(0.2)
    assert response.transfer.cut is None
    await end(response)


async def test_silence_of_the_store_holds_up_all_transfers_at_once_and_not_one_after_the_other(
    watching, facts
):
    responses = [Response(watching, receipt(facts), is_slow=True) for _ in range(50)]
    await asyncio.sleep(0.02)
    facts.delay = 0.1
    facts.move(Refusal(Reason.REVOKED_KEY))
    started = asyncio.get_running_loop().time()
    assert {await response.cut() for response in responses} == {Ending.REVOKED}
    assert asyncio.get_running_loop().time() - started < 1.5


async def test_a_client_that_leaves_is_no_cut(watching, facts):
    response = Response(watching, receipt(facts))
    await asyncio.sleep(0.02)
    await end(response)
    assert response.transfer.cut is None
    assert response.aborted == 0


async def test_the_task_of_a_cut_transfer_is_not_cancelled_beyond_it(watching, facts):
    # A server may answer the next request of a connection in the same task.
    after = []

    async def serve():
        async with watching.under_way(receipt(facts), ClientEnd()):
            await asyncio.sleep(60)
        await asyncio.sleep(0)
        after.append(asyncio.current_task().cancelling())

    task = asyncio.create_task(serve())
    await asyncio.sleep(0.02)
    facts.move(Refusal(Reason.REVOKED_KEY))
    await asyncio.wait_for(task, 2)
    assert after == [0]
