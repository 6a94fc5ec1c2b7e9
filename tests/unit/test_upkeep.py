"""A worker's chores: what they notice, and that none of them ends unseen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from gateway import upkeep as module
from gateway.directory.lease import Lease
from gateway.identity.last_uses import LastUses
from gateway.model.errors import Reason, Unavailable
from gateway.model.verdicts import ChangeReceipt
from gateway.telemetry import Telemetry
from gateway.upkeep import Upkeep

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@dataclass
class Rooms:
    """All that a worker looks after, in one; each can fail."""

    lease: Lease = field(default_factory=lambda: Lease(1.0))
    time: float = 100.0
    faults: dict = field(default_factory=dict)  # by what is called
    called: list = field(default_factory=list)
    changes: list = field(default_factory=list)

    def call(self, name):
        self.called.append(name)
        if name in self.faults:
            raise self.faults[name]

    def now(self):
        return 1.0

    def monotonic(self):
        return self.time

    def is_leased(self):
        return self.lease.is_held(self.time)

    async def run(self, listener):
        self.lease.restart(1)
        self.lease.renewed(sent_at=self.time, generation=1)
        self.call("feed")
        await asyncio.sleep(60)

    async def watch(self):
        self.call("watch")
        await asyncio.sleep(60)

    async def refresh(self, known):
        self.call("disk")

    async def known_models(self):
        return frozenset()

    async def verify_policy(self):
        self.call("policy")

    async def put_hash(self, name, values):
        self.call("last uses")

    async def drop_workers(self, workers):
        self.called.append(("goodbye", *workers))
        self.call("goodbye")

    def change(self, change):
        self.call("record")
        return ChangeReceipt(record_id="r", on_close=lambda *_: self.changes.append(change.action))

    def tick(self, now):
        self.call("audit")

    def close(self):
        self.call("close recorder")


class Store(Rooms):
    async def close(self):
        self.call("close store")


@pytest.fixture
def rooms():
    return Rooms()


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def upkeep(rooms, telemetry):
    store = Store(called=rooms.called, faults=rooms.faults)
    return Upkeep(
        worker="node:1:ab",
        clock=rooms,
        store=store,
        facts=rooms,
        follower=None,
        feed=rooms,
        directory=rooms,
        catalogue=rooms,
        recorder=rooms,
        transfers=rooms,
        last_uses=LastUses(),
        canary=None,
        scan_seconds=0.02,
        telemetry=telemetry,
    )


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("HOUSEKEEPING_SECONDS", "LEASE_WATCH_SECONDS", "LAST_USE_SECONDS"):
        monkeypatch.setattr(module, name, 0.01)


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 -- lists are no events
            await asyncio.sleep(0.002)


async def test_everything_is_looked_at_once_before_the_first_request_and_again_while_it_serves(upkeep, rooms):
    async with upkeep.running():
        assert {"feed", "disk", "policy"} <= set(rooms.called)
        assert upkeep.has_policy
        rooms.called.clear()
        await until(lambda: {"disk", "policy", "audit"} <= set(rooms.called))
        assert upkeep.is_whole


async def test_a_worker_says_goodbye_before_it_lets_go_of_everything(upkeep, rooms):
    async with upkeep.running():
        rooms.called.clear()
    ending = [one for one in rooms.called if one not in {"disk", "policy", "audit", "watch"}]
    assert ending == [("goodbye", "node:1:ab"), "goodbye", "close recorder", "close store"]


async def test_what_fails_is_counted_and_tried_again(upkeep, rooms, telemetry):
    fault = Unavailable("redis", "gone", Reason.NO_FACTS)
    rooms.faults.update(dict.fromkeys(("disk", "policy", "audit", "goodbye", "close recorder"), fault))
    async with upkeep.running():
        assert not upkeep.has_policy
        await until(lambda: rooms.called.count("policy") >= 3)
        rooms.faults.clear()
        await until(lambda: upkeep.has_policy)
        rooms.faults.update({"goodbye": fault, "close recorder": fault})
        assert upkeep.is_whole
    assert telemetry.counters['cachegate_dependency_failures_total{dependency="redis"}'] >= 4
    assert rooms.called[-1] == "close store"


async def test_a_chore_that_ends_is_a_defect_that_shows(upkeep, rooms, telemetry):
    async with upkeep.running():
        rooms.faults["disk"] = RuntimeError("a defect of ours")
        await until(lambda: not upkeep.is_whole)
        assert telemetry.counters["cachegate_defects_total"] == 1


async def test_ending_normally_is_no_defect(upkeep, telemetry):
    async with upkeep.running():
        pass
    assert upkeep.is_whole
    assert telemetry.counters["cachegate_defects_total"] == 0


async def test_each_change_of_mode_is_recorded_once(upkeep, rooms):
    async with upkeep.running():
        await until(lambda: rooms.called.count("audit") >= 3)
        assert rooms.changes == []
        rooms.time += 5.0
        await until(lambda: rooms.changes)
        rooms.lease.renewed(sent_at=rooms.time, generation=1)
        await until(lambda: len(rooms.changes) == 2)
        await until(lambda: rooms.called.count("audit") >= 10)
    assert rooms.changes == ["mode.no-lease", "mode.normal"]


async def test_a_mode_that_cannot_be_recorded_is_told_to_operators_all_the_same(upkeep, rooms, telemetry):
    async with upkeep.running():
        rooms.faults["record"] = Unavailable("audit", "full", Reason.NO_AUDIT)
        rooms.time += 5.0
        await until(lambda: telemetry.counters['cachegate_dependency_failures_total{dependency="audit"}'])
    assert rooms.changes == []


async def test_a_worker_without_a_lease_starts_late_and_not_never(upkeep, rooms, monkeypatch):
    monkeypatch.setattr(module, "START_PATIENCE_SECONDS", 5.0)

    async def silent(listener):
        rooms.time += 6.0
        await asyncio.sleep(60)

    rooms.run = silent
    async with upkeep.running():
        assert not rooms.is_leased()
