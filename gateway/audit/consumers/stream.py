"""Copy the log of a node into the stream that all nodes share; where it is bounded says the adapter.

The server has the position of each node. Where that is another one than ours (a kill between an append and
our note, a failover to a server that lacks the last appends), the delivery goes on at the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.audit.consumers.delivery import HandedPage, NotDeliveredError
from gateway.audit.index import encode_cursor, parse_cursor
from gateway.model.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.audit.index import Cursor, IndexedRecord

FULL_PAUSE_SECONDS = 2.0


class AppendResult(Protocol):
    """What an attempt to append came to."""

    @property
    def moved_to(self) -> str | None:
        """Nothing was appended: the server has this node's log up to that cursor."""


class StreamAppender(Protocol):
    """Appends to the stream."""

    async def append(
        self,
        records: Sequence[tuple[str, str, bytes]],
        expected: str,
        position: str,
        *,
        is_forced: bool = False,
    ) -> AppendResult:
        """Append (record id, cursor in front of it, line). Raises `Unavailable`."""

    async def close(self) -> None:
        """Close the connection."""


class StreamTarget:
    """The stream, for one node. `full` is what the appender raises where there is no room."""

    def __init__(self, appender: StreamAppender, *, full: type[Unavailable]) -> None:
        self._appender = appender
        self._full = full

    async def deliver(self, records: Sequence[IndexedRecord], start: Cursor, end: Cursor) -> HandedPage:
        """Append the records; raises `NotDeliveredError`."""
        first = encode_cursor(start)
        befores = [first, *(encode_cursor(one.cursor) for one in records[:-1])]
        entries = [(one.record.id, before, one.line) for one, before in zip(records, befores, strict=True)]
        position = encode_cursor(end)
        try:
            appended = await self._appender.append(entries, first, position)
            if appended.moved_to is None:
                return HandedPage()
            try:
                return HandedPage(goes_on_at=parse_cursor(appended.moved_to))
            except ValueError:  # somebody wrote there what is no cursor of ours
                await self._appender.append(entries, first, position, is_forced=True)
                return HandedPage()
        except self._full as failure:
            raise NotDeliveredError(
                str(failure), pause_seconds=FULL_PAUSE_SECONDS, is_paused=True
            ) from failure
        except Unavailable as failure:
            raise NotDeliveredError(str(failure)) from failure

    async def close(self) -> None:
        """Close the connection."""
        await self._appender.close()
