"""A log with an index, and a target whose behaviour a test sets."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from gateway.audit.consumers.delivery import Delivery, DeliveryLimits, HandedPage
from gateway.audit.consumers.registry import ConsumerRegistry
from gateway.audit.index import Indexer, IndexReader
from gateway.audit.record import WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2030-01-31T12:00:00.000000Z"


class IndexedLog:
    """A log to which a test writes, and its index, which follows at once."""

    def __init__(self, audit) -> None:
        self.folder = audit.folder
        self.clock = audit.clock
        self.log = audit.open(segment_bytes=4096)
        self.folder.chmod(0o700)
        self.indexer = Indexer(self.folder, "node-1")
        self.registry = ConsumerRegistry(self.folder)
        self.reader = IndexReader(self.folder, "node-1")

    def write(self, count: int) -> None:
        for number in range(count):
            self.log.note(WorkerRecord, worker=f"w{number}", state="started", version="1")
        self.indexer.step()

    def ids(self) -> list[str]:
        """All records, in the order of the index."""
        return [one.record.id for one in self.reader.read(self.reader.start(), 100_000).records]


@dataclass
class ScriptedTarget:
    """A target that keeps what it was given; `before` may raise, wait or do something."""

    before: Callable[[int], None] = lambda _call: None
    got: list[str] = field(default_factory=list)
    calls: int = 0
    closed: int = 0
    goes_on_at: list = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    async def deliver(self, records, start, end):
        self.calls += 1
        self.before(self.calls)
        if self.goes_on_at:
            return HandedPage(goes_on_at=self.goes_on_at.pop())
        with self.changed:
            self.got += [one.record.id for one in records]
            self.changed.notify_all()
        return HandedPage()

    async def close(self):
        self.closed += 1

    def await_all(self, ids, seconds: float = 20.0) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(ids) <= set(self.got), seconds)


@pytest.fixture
def indexed(audit):
    made = IndexedLog(audit)
    yield made
    made.log.close()
    made.indexer.close()


@pytest.fixture
def deliver(indexed):
    """Run a delivery until a target has these records, or `is_ending` says so."""

    async def run(name, target, is_ending=None, **limits):
        consumer = indexed.registry.find(name)
        ids = indexed.ids()
        delivery = Delivery(
            indexed.folder,
            consumer,
            indexed.registry,
            indexed.reader,
            target,
            is_ending=is_ending or (lambda: set(ids) <= set(target.got)),
            now=indexed.clock.now,
            limits=DeliveryLimits(**limits) if limits else None,
        )
        await delivery.run()
        return delivery

    return run
