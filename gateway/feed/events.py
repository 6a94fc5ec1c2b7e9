"""The feed: a page of records behind a cursor, with or without waiting for them, or a stream that goes on.

    page     what is there, at most `limit` records; with `wait` not before there is news, or the time is over
    stream   server-sent events: what is there, and then what comes, until the reader or its key is gone

Files are read in threads, a few at a time. How much one request reads is bounded: a page whose filter matches
nothing ends empty, with the cursor from which to go on. A tenant's readers are slowed down where they make
the gateway search (`search_pace.py`). A stream holds one piece of at most
`PIECE_BYTES` for its reader, and what the socket holds; the server cuts a reader that takes nothing.

The guard watches polls and streams as it does every transfer: when their key or its tenant ends, so do they.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

import msgspec

from gateway.audit.index import parse_cursor
from gateway.delivery.headers import UNSTORED, content_headers
from gateway.feed.following import NewestRecords
from gateway.feed.places import Places
from gateway.feed.search_pace import SearchPace
from gateway.feed.selection import ALL, END, JSON, LINES, STREAM
from gateway.model.answers import Answer, Streamed
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.header_block import Headers
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from gateway.audit.index import Cursor, IndexedRecord, IndexReader
    from gateway.feed.following import HeldRecord
    from gateway.feed.kept_consumers import KeptConsumers
    from gateway.feed.sealed_cursors import CursorSeal
    from gateway.feed.selection import FeedRequest, Selection
    from gateway.model.access import WireRequest
    from gateway.model.clocks import Clock


THREADS = 2
MOST_READING = 32  # pages at a time, most of which wait for a thread
MOST_WAITING = 256  # long polls
MOST_STREAMS = 64
PAGE_BYTES = 4 << 20
SEARCHED_PAGES = 4  # of the index, for one page whose filter matches little
STREAM_RECORDS = 500
PIECE_BYTES = 256 << 10
HEARTBEAT_SECONDS = 15.0
BEHIND_SECONDS = 0.01  # until a stream looks again that is not at the end, and whose end is not held

GAP = (b"cachegate-gap", b"retention")
_STREAM_TYPE = b"text/event-stream; charset=utf-8"

_T = TypeVar("_T")


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """What was read for one request: records, with what the reader gets of each."""

    documents: list[tuple[IndexedRecord, bytes]]
    cursor: Cursor
    is_at_end: bool
    removed: int


class EventFeed:
    """The feed of one worker. Belongs to one event loop."""

    def __init__(
        self,
        make_reader: Callable[[], IndexReader],
        seal: Callable[[], CursorSeal],
        clock: Clock,
        *,
        consumers: KeptConsumers | None = None,
        on_failure: Callable[[Unavailable], None] = lambda _: None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """`make_reader` makes a reader of the index; `seal` loads the cursors' key, at the first request."""
        self._threads = ThreadPoolExecutor(THREADS, "audit-feed")
        self._reader = make_reader()
        self._load_seal = seal
        self._seal_loaded: CursorSeal | None = None
        self._clock = clock
        self._consumers = consumers
        self._heartbeat_seconds = heartbeat_seconds
        self._following = NewestRecords(
            make_reader(), ThreadPoolExecutor(1, "audit-follow"), on_failure=on_failure
        )
        self._reading = Places(MOST_READING)
        self._polls = Places(MOST_WAITING)
        self._streams = Places(MOST_STREAMS)
        self._pace = SearchPace()

    def gauges(self) -> dict[str, float]:
        """How many readers there are."""
        return {
            "cachegate_feed_waiting": float(len(self._polls)),
            "cachegate_feed_streams": float(len(self._streams)),
        }

    def close(self) -> None:
        """Have polls answered and streams ended: the worker stops."""
        self._following.close()

    async def begin(self, asked: FeedRequest) -> Cursor:
        """Where to read from. Raises `Refusal(UNKNOWN_CURSOR)`, and `Unavailable`."""
        with self._reading.taken(asked.reader.tenant):
            return await self.in_thread(partial(self._begin_now, asked))

    async def answer(self, asked: FeedRequest, cursor: Cursor, request: WireRequest) -> Answer:
        """The answer. Raises `Refusal`, and `Unavailable` when the log cannot be read."""
        is_head = request.method == "HEAD"
        if asked.form != STREAM:
            seconds = 0.0 if is_head else asked.wait_seconds
            return self._page_answer(asked, await self._poll(asked, cursor, request.received_at, seconds))
        return Answer(HTTPStatus.OK, _stream_headers(), b"") if is_head else self._stream(asked, cursor)

    def _begin_now(self, asked: FeedRequest) -> Cursor:
        after: Cursor | None = None
        if self._seal_loaded is None:
            self._seal_loaded = self._load_seal()
        if asked.after == END:
            after = self._reader.end()
        elif asked.after is not None:
            after = self._open(asked.after, asked.reader.whose)
            if after.node != self._reader.start().node:
                raise Refusal(Reason.UNKNOWN_CURSOR)
        if asked.consumer is not None and self._consumers is not None:
            kept = self._consumers.resume(asked.consumer, acknowledged=after)
            after = after or kept
        return after or self._reader.start()

    def _open(self, text: str, whose: str) -> Cursor:
        """The cursor of a text. Readers of the whole log may give one of the index itself, too.

        Such a cursor stands in what other consumers get, as where the feed completes what they missed.
        """
        if self._seal_loaded is None:
            raise TypeError("the key of the cursors was not loaded yet")
        try:
            return parse_cursor(text) if whose == ALL and "." in text else self._seal_loaded.open(text, whose)
        except ValueError as error:
            raise Refusal(Reason.UNKNOWN_CURSOR) from error

    def _sealed(self, cursor: Cursor, whose: str) -> str:
        if self._seal_loaded is None:
            raise TypeError("no cursor was opened yet")
        return self._seal_loaded.seal(cursor, whose)

    # Pages

    async def _poll(
        self, asked: FeedRequest, cursor: Cursor, received_at: float, wait_seconds: float
    ) -> FeedPage:
        """The page behind a cursor, once there is news or the time since the request came is over."""
        deadline = received_at + wait_seconds
        with self._reading.taken(asked.reader.tenant):
            page = await self._read(asked.selection, cursor, asked.limit)
        following, selection = self._following, asked.selection
        if not wait_seconds or not page.is_at_end or await self._has_news(page, selection):
            return page
        with self._polls.taken(asked.reader.tenant):
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock.now())):
                    await following.begin()
            except TimeoutError:  # the log cannot be followed now
                return page
            try:
                while not following.is_closed and (left := deadline - self._clock.now()) > 0:
                    number = following.find_number(page.cursor)
                    if number is not None:
                        if not await self._await_news(number, selection, left):
                            break
                    else:
                        await asyncio.sleep(min(left, BEHIND_SECONDS))
                    page = await self._read_once_there_is_a_place(selection, cursor, asked.limit)
                    if not page.is_at_end or await self._has_news(page, selection):
                        return page
            finally:
                following.leave()
            # With what is no news.
            return await self._read_once_there_is_a_place(selection, cursor, asked.limit)

    async def _has_news(self, page: FeedPage, selection: Selection) -> bool:
        return await self._following.is_news([item for item, _ in page.documents], selection.reader)

    async def _await_news(self, number: int, selection: Selection, seconds: float) -> bool:
        """Wait until a held record from this number on is news; False once the time is over.

        True also where what is new is no longer held.
        """
        following, loop = self._following, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0 and not following.is_closed:
            await following.wait_behind(number, left)
            held = following.records_from(number)
            if held is None:
                return True
            number += len(held)
            found = [one.item for one in held if selection.document(one.item) is not None]
            if found and await following.is_news(found, selection.reader):
                return True
        return False

    async def _read_once_there_is_a_place(
        self, selection: Selection, cursor: Cursor, limit: int, most_bytes: int = PAGE_BYTES
    ) -> FeedPage:
        """As `_read`, for polls and streams: they are bounded themselves, and one record may wake all."""
        async with self._reading.awaited(selection.reader.tenant):
            return await self._read(selection, cursor, limit, most_bytes)

    async def _read(
        self, selection: Selection, cursor: Cursor, limit: int, most_bytes: int = PAGE_BYTES
    ) -> FeedPage:
        async with self._pace.paced(selection.reader.tenant):
            return await self.in_thread(partial(self._read_now, selection, cursor, limit, most_bytes))

    def _read_now(self, selection: Selection, cursor: Cursor, limit: int, most_bytes: int) -> FeedPage:
        """In a thread: read until there are enough records, or the end, or enough was looked at."""
        documents: list[tuple[IndexedRecord, bytes]] = []
        removed = size = 0
        is_at_end = False
        for _ in range(SEARCHED_PAGES):
            left = limit - len(documents)
            page = self._reader.read(cursor, left, selection.query, most_bytes - size)
            for item in page.records:
                document = selection.document(item)
                if document is not None:
                    documents.append((item, document))
                    size += len(document)
            cursor, is_at_end = page.cursor, page.is_at_end
            removed += page.removed
            if is_at_end or len(documents) >= limit or size >= most_bytes:
                break
        return FeedPage(documents=documents, cursor=cursor, is_at_end=is_at_end, removed=removed)

    async def in_thread(self, call: Callable[[], _T]) -> _T:
        """Have files read. Raises `Unavailable` where that fails."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, call)
        except OSError as error:
            why = f"the log cannot be read ({error.strerror})"
            raise Unavailable("audit", why, Reason.NO_AUDIT) from error

    def _page_answer(self, asked: FeedRequest, page: FeedPage) -> Answer:
        whose = asked.reader.whose
        following = self._sealed(page.cursor, whose)
        entries = [
            b'{"cursor":"%b","record":%b}' % (self._sealed(item.cursor, whose).encode(), document)
            for item, document in page.documents
        ]
        if asked.form == LINES:
            body = b"".join([entry + b"\n" for entry in entries])
        else:
            end = b"true" if page.is_at_end else b"false"
            body = b'{"events":[%b],"next":"%b","at_end":%b}\n' % (
                b",".join(entries), following.encode(), end,
            )  # fmt: skip
        described = content_headers(LINES if asked.form == LINES else JSON, len(body))
        more = [(b"link", f'<{asked.next_page(following)}>; rel="next"'.encode())]
        if page.removed:
            more.append(GAP)
        return Answer(HTTPStatus.OK, Headers.of(*described, *UNSTORED, *more), body)

    # Streams

    def _stream(self, asked: FeedRequest, cursor: Cursor) -> Answer:
        tenant = asked.reader.tenant
        self._streams.take(tenant)
        has_place = True

        async def close() -> None:
            nonlocal has_place
            if has_place:
                has_place = False
                self._streams.give_back(tenant)

        pieces = self._pieces(asked, cursor)
        body = Streamed(pieces=pieces, length=None, close=close, ending=Ending.COMPLETE)
        return Answer(HTTPStatus.OK, _stream_headers(), body)

    async def _pieces(self, asked: FeedRequest, cursor: Cursor) -> AsyncIterator[bytes]:
        """The events of a stream, in pieces; ends when the worker stops."""
        following, selection = self._following, asked.selection
        yield b"retry: 1000\n\n"
        await following.begin()
        try:
            while not following.is_closed:
                number = following.find_number(cursor)
                if number is None:
                    page = await self._read_once_there_is_a_place(
                        selection, cursor, STREAM_RECORDS, PIECE_BYTES
                    )
                    if page.removed:
                        yield _gap(page.removed if asked.reader.tenant is None else None)
                    for piece in _in_pieces(self._events(page.documents, asked.reader.whose)):
                        yield piece
                    cursor = page.cursor
                    if page.is_at_end and following.find_number(cursor) is None:
                        await asyncio.sleep(BEHIND_SECONDS)
                    continue
                has_news = await self._await_news(number, selection, self._heartbeat_seconds)
                held = following.records_from(number, STREAM_RECORDS)
                if held is None:  # what follows is no longer held
                    continue
                if held:
                    cursor = held[-1].item.cursor
                for piece in _in_pieces(self._held_events(held, selection)):
                    yield piece
                if not has_news:  # the reader learns how far it is, and a proxy that somebody is there
                    yield b": \nid: %b\n\n" % self._sealed(cursor, asked.reader.whose).encode()
        finally:
            following.leave()

    def _held_events(self, records: list[HeldRecord], selection: Selection) -> Iterator[bytes]:
        """The events of held records. What all readers of the whole log get is sealed once."""
        whose = selection.reader.whose
        for held in records:
            document = selection.document(held.item)
            if document is None:
                continue
            if whose != ALL:
                sealed = self._sealed(held.item.cursor, whose)
            else:
                held.sealed = sealed = held.sealed or self._sealed(held.item.cursor, ALL)
            yield _event(sealed, document)

    def _events(self, documents: list[tuple[IndexedRecord, bytes]], whose: str) -> Iterator[bytes]:
        return (_event(self._sealed(item.cursor, whose), document) for item, document in documents)


def _event(sealed: str, document: bytes) -> bytes:
    """One event. A document is one line: JSON escapes what would end it."""
    return b"id: %b\ndata: %b\n\n" % (sealed.encode(), document)


def _gap(removed: int | None) -> bytes:
    """Tells that retention removed records which the reader had not read; to a tenant not how many."""
    return b"event: gap\ndata: {%b}\n\n" % (b"" if removed is None else b'"removed":%d' % removed)


def _in_pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """One piece at a time, made when the reader has taken the one before it."""
    piece: list[bytes] = []
    size = 0
    for event in events:
        if size and size + len(event) > PIECE_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
        piece.append(event)
        size += len(event)
    if piece:
        yield b"".join(piece)


def _stream_headers() -> Headers:
    # `x-accel-buffering` has nginx pass on each event as it comes.
    return Headers.of((b"content-type", _STREAM_TYPE), *UNSTORED, (b"x-accel-buffering", b"no"))
