"""Readers of the feed whose cursor the gateway keeps: `?consumer=NAME`.

Such a reader is registered by an operator (`audit consumers add`), since retention waits for it. Reading
without `after` goes on behind what it acknowledged last. It acknowledges by asking for what comes next: a
cursor that comes back in `after` says that everything in front of it has arrived. So a reader that is killed
gets again what it had not acknowledged. Going back to an older cursor is possible at any time.

What it has is noted for retention chain by chain, of the records that lie in front of its cursor. All calls
block: they are made in threads. A disk that takes no note stops no reader.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from gateway.audit.consumers.delivery import age_of
from gateway.audit.folder import group_segments
from gateway.audit.index import encode_cursor, parse_cursor
from gateway.audit.keeping.needs import Needs, read_needs
from gateway.audit.record import parse_link
from gateway.audit.timeline import time_text
from gateway.model.errors import Reason, Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.audit.consumers.registry import Consumer, ConsumerProgress, ConsumerRegistry
    from gateway.audit.index import Cursor, IndexReader
    from gateway.model.clocks import Clock

KIND = "feed"
PAGE_RECORDS = 1000
MOST_PAGES = 64  # of what is acknowledged at once; more is noted with the next acknowledgement
MOST_CHAINS = 6000
REFRESH_SECONDS = 10.0


class KeptConsumers:
    """The named readers of one node, as one worker sees them."""

    def __init__(
        self,
        folder: Path,
        registry: ConsumerRegistry,
        reader: IndexReader,
        clock: Clock,
        on_failure: Callable[[Unavailable], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._reader = reader
        self._clock = clock
        self._on_failure = on_failure
        self._mutex = threading.Lock()

    def resume(self, name: str, *, acknowledged: Cursor | None) -> Cursor | None:
        """Where a reader goes on; None for one that acknowledged nothing yet. An acknowledgement is noted.

        Raises `Refusal` for a name that nobody registered.
        """
        with self._mutex:
            consumer = self._registry.find(name)
            if consumer is None or consumer.registration.kind != KIND:
                raise Refusal(
                    Reason.MALFORMED_QUERY,
                    client_detail="consumer: there is none of this name; an operator makes one with "
                    "`cachegate audit consumers add NAME --feed`",
                )
            kept = _kept(consumer)
            if acknowledged is None:
                return kept
            try:
                self._note(consumer, kept, acknowledged)
            except Unavailable as failure:  # it goes on: after a restart it gets more again
                self._on_failure(failure)
            return acknowledged

    def refresh(self) -> None:
        """Note how far behind each reader is now, also where it does not come any more."""
        with self._mutex:
            for consumer in self._registry.load_all():
                if consumer.registration.kind == KIND:
                    progress = self._with_lag(consumer, _kept(consumer))
                    if progress != consumer.progress:  # what another worker notes meanwhile goes before
                        self._registry.save(consumer.registration, progress, instead_of=consumer.progress)

    def _note(self, consumer: Consumer, kept: Cursor | None, acknowledged: Cursor) -> None:
        before = kept or self._reader.start()
        needs = read_needs(self._folder).get(consumer.registration.name, Needs())
        has, delivered, last_time = dict(needs.has), 0, consumer.progress.last_time
        cursor = before
        for _ in range(MOST_PAGES):
            if cursor.order == acknowledged.order and cursor.place >= acknowledged.place:
                break
            page = self._reader.read(cursor, PAGE_RECORDS)
            for item in page.records:
                if item.cursor.order == acknowledged.order and item.cursor.place > acknowledged.place:
                    break
                link = parse_link(item.line)
                has[link.chain] = max(link.seq, has.get(link.chain, 0))
                last_time = link.time
                delivered += 1
            if page.cursor == cursor:
                break
            cursor = page.cursor
        if len(has) > MOST_CHAINS:
            there = group_segments(self._folder.iterdir())
            has = {chain: seq for chain, seq in has.items() if chain in there}
        progress = msgspec.structs.replace(
            consumer.progress,
            cursor=encode_cursor(acknowledged),
            state="running",
            error=None,
            delivered=consumer.progress.delivered + delivered,
            last_time=last_time,
            updated_at=time_text(self._clock.now()),
        )
        moved = msgspec.structs.replace(consumer, progress=progress)
        noted = Needs(has=has, has_before=needs.has_before)
        self._registry.save(consumer.registration, self._with_lag(moved, acknowledged), noted)

    def _with_lag(self, consumer: Consumer, cursor: Cursor | None) -> ConsumerProgress:
        cursor = cursor or self._reader.start()
        page = self._reader.read(cursor, 1)
        if not page.records:
            return msgspec.structs.replace(consumer.progress, lag_records=0, lag_seconds=0.0)
        end = self._reader.end()
        waiting = end.place - cursor.place if end.order == cursor.order else 1
        return msgspec.structs.replace(
            consumer.progress,
            lag_records=max(waiting, 1),
            lag_seconds=age_of(page.records[0], self._clock.now()),
        )


def _kept(consumer: Consumer) -> Cursor | None:
    """The cursor that was acknowledged last. One that does not parse is the start: twice, and not never."""
    try:
        return None if consumer.cursor is None else parse_cursor(consumer.cursor)
    except ValueError:
        return None
