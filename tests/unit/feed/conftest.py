"""A real log with a real index, which is extended when a test says so, and readers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gateway.audit.index import Indexer, IndexReader
from gateway.feed.events import EventFeed
from gateway.feed.sealed_cursors import CursorSeal
from gateway.feed.selection import EVENTS_PATH, FeedReader, parse_request
from gateway.model.access import Action
from gateway.model.names import KeyId, TenantId
from gateway.model.verdicts import Ending, Outcome
from tests import samples
from tests.unit.audit.conftest import START, AuditFolder

if TYPE_CHECKING:
    from pathlib import Path

NODE = "node-1"
READER = KeyId("key_readerreader")
OUTCOME = Outcome(ending=Ending.COMPLETE, status=200, bytes_sent=1, milliseconds=1.0)


@dataclass
class LiveLog:
    """A log, its index, and a feed over them."""

    folder: Path
    audit: AuditFolder = field(init=False)
    seal: CursorSeal = field(default_factory=lambda: CursorSeal(bytes(32)))

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700)
        self.audit = AuditFolder(self.folder)
        self.log = self.audit.open()
        self.indexer = Indexer(self.folder, NODE)
        self.number = 0

    def reader(self) -> IndexReader:
        return IndexReader(self.folder, NODE)

    def feed(self, **more: Any) -> EventFeed:
        return EventFeed(self.reader, lambda: self.seal, self.audit.clock, **more)

    def record(
        self,
        tenant: str | None = "acme",
        key: str = "key_abcdefghijkl",
        route: str = "/v1/models",
        *,
        is_closed: bool = False,
        is_indexed: bool = True,
    ) -> str:
        """Write the record of an allow, and of its outcome; the decision's id."""
        caller = samples.principal(tenant=tenant and TenantId(tenant), key_id=KeyId(key))
        action = Action.AUDIT_READ if route.startswith("/audit/") else Action.READ
        self.audit.clock.time += 0.001
        receipt = self.log.admit(
            samples.admission(caller, request=samples.wire_request(route=route), action=action)
        )
        if is_closed:
            receipt.close(OUTCOME)
        if is_indexed:
            self.index()
        return receipt.record_id

    def index(self) -> None:
        self.indexer.step()

    def asked(self, query: str = "", tenant: str | None = None, key: str = READER, accept: str = "") -> Any:
        reader = FeedReader(key_id=KeyId(key), tenant=tenant and TenantId(tenant))
        headers = ((b"accept", accept.encode()),) if accept else ()
        request = samples.wire_request(query=query.encode(), headers=headers, route=EVENTS_PATH)
        return parse_request(request, reader, START)

    def close(self) -> None:
        self.log.close()
        self.indexer.close()


@pytest.fixture
def live(tmp_path):
    log = LiveLog(tmp_path / "audit")
    yield log
    log.close()
