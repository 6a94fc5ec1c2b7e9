"""Agreeing on pins over a real store: what is written, what is recorded, who is notified."""

from __future__ import annotations

import asyncio

import pytest

from gateway.directory.reading.listing import Listing
from gateway.directory.reading.uncached import PlainFacts
from gateway.directory.records import names
from gateway.model.errors import NotHeld, Reason, Unavailable
from gateway.model.names import Md5
from gateway.model.pins import Measured
from gateway.model.stores import GroupSize
from gateway.pinning.ledger import MAX_PINS_PER_CHANGE, PinLedger
from gateway.registrar import Registrar


def blob(number):
    return Md5(f"{number:032x}")


def good(number, sha256="ab"):
    measured = Measured(identity=(1, number, 3, 4, 5), md5=blob(number), sha256=sha256 * 32)
    return blob(number), measured


def bad(number):
    return blob(number), Measured(identity=(1, number, 3, 4, 5), md5="ff" * 16, sha256="cd" * 32)


class Recorded:
    """The part of a recorder that changes pass."""

    def __init__(self):
        self.changes = []
        self.fault = None

    def change(self, change):
        if self.fault:
            raise self.fault
        self.changes.append(change)
        return self

    def close(self, *, generation, result, digests=None):
        assert (result, digests) == ("done", None)


class SetClock:
    def now(self):
        return 7.0


class Node:
    def __init__(self, store, name="n"):
        self.recorded = Recorded()
        self.pinned = 0
        self.quarantined = []
        self.listing = Listing(PlainFacts(store))
        self.ledger = PinLedger(
            store=store,
            listing=self.listing,
            perform=Registrar(store=store, recorder=self.recorded).perform,
            clock=SetClock(),
            actor=f"worker:{name}",
            on_pinned=self.count,
            on_quarantined=self.quarantined.append,
        )

    def count(self, number):
        self.pinned += number

    @property
    def actions(self):
        return [change.action for change in self.recorded.changes]


@pytest.fixture
def node(store):
    return Node(store)


pytestmark = pytest.mark.anyio


async def test_new_blobs_are_pinned_together_in_one_recorded_change(node, store):
    generation = await node.ledger.agree([good(1), good(2)])
    assert generation == await store.generation() == 1
    [change] = node.recorded.changes
    assert (change.actor, change.action, change.received_at) == ("worker:n", "cache.pin", 7.0)
    assert change.subject == tuple(f"{blob(one)} sha256:{'ab' * 32}" for one in (1, 2))
    assert node.pinned == 2


async def test_agreement_writes_and_records_nothing(node, store):
    await node.ledger.agree([good(1)])
    assert await node.ledger.agree([good(1)]) == 1
    assert (await store.generation(), node.actions) == (1, ["cache.pin"])


async def test_a_bad_blob_is_quarantined_recorded_and_told(node):
    await node.ledger.agree([good(1), bad(2)])
    assert node.actions == ["cache.pin", "cache.quarantine"]
    change = node.recorded.changes[1]
    assert change.subject == (blob(2), "not-its-name", f"found sha256:{'cd' * 32}")
    assert [pin.md5 for pin in node.quarantined] == [blob(2)]
    assert [pin.md5 for pin in await node.listing.list_quarantined()] == [blob(2)]
    await node.ledger.agree([bad(2)])
    assert len(node.quarantined) == 1


@pytest.mark.parametrize("content", ["good", "bad"])
async def test_what_not_every_server_has_is_not_acknowledged_and_the_operator_is_told_all_the_same(
    node, store, content
):
    async def grows(_snapshot, batch):
        batch.group = GroupSize(servers=2)

    await store.transact(grows)
    with pytest.raises(NotHeld):
        await node.ledger.agree([(good if content == "good" else bad)(1)])
    assert node.actions == ["cache.pin" if content == "good" else "cache.quarantine"]
    assert (node.pinned, len(node.quarantined)) == ((1, 0) if content == "good" else (0, 1))
    # It is in the facts, where the next caller finds it.
    await node.ledger.agree([(good if content == "good" else bad)(1)])


async def test_a_node_that_found_another_content_quarantines(node, store):
    await node.ledger.agree([good(1)])
    other = Node(store, "other")
    await other.ledger.agree([good(1, sha256="ef")])
    assert other.actions == ["cache.quarantine"]
    assert (await node.listing.find_pin(blob(1))).quarantine.cause == "not-its-pin"


async def test_of_two_nodes_that_find_two_contents_at_once_both_are_heard(node, store):
    other = Node(store, "other")
    await asyncio.gather(node.ledger.agree([good(1)]), other.ledger.agree([good(1, sha256="ef")]))
    assert (await node.listing.find_pin(blob(1))).quarantine is not None


async def test_what_cannot_be_recorded_is_not_pinned(node):
    node.recorded.fault = Unavailable("audit", "full", Reason.NO_AUDIT)
    with pytest.raises(Unavailable):
        await node.ledger.agree([good(1)])
    assert await node.listing.find_pin(blob(1)) is None


async def test_very_many_go_in_several_changes(node):
    await node.ledger.agree([good(number) for number in range(MAX_PINS_PER_CHANGE + 1)])
    assert [len(change.subject) for change in node.recorded.changes] == [MAX_PINS_PER_CHANGE, 1]
    assert node.pinned == MAX_PINS_PER_CHANGE + 1


async def test_nothing_to_agree_on_is_agreed(node):
    assert await node.ledger.agree([]) == 0
    assert node.actions == []


async def test_a_blob_whose_record_does_not_parse_is_left_out_and_the_others_are_agreed_on(node, store):
    await store._client.set(names.pin_fact(blob(1)), b"\xc1garbage")
    await store._client.set(names.pin_fact(blob(2)), b"\xc1garbage")
    await node.ledger.agree([good(1), bad(2), good(3), bad(4)])
    assert node.actions == ["cache.pin", "cache.quarantine"]
    assert [change.subject[0] for change in node.recorded.changes] == [
        f"{blob(3)} sha256:{'ab' * 32}",
        blob(4),
    ]
