"""Bounds the bytes of a request's head, counted while it arrives.

The parser buffers each header whole before it reports it. So two counts are kept: the bytes of the headers it
has reported, and the bytes it was fed since the head began, which bounds what it may have buffered. A head
that begins in the middle of a read is counted from the next read on.
"""

from __future__ import annotations

from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES

_HEADER_OVERHEAD_BYTES = 4  # the colon, a blank and the line end
_MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024


class HeadBudget:
    """The count for the head of one request after the other on a connection."""

    __slots__ = ("_began_in_this_feed", "_fed_bytes", "_header_bytes", "is_open")

    def __init__(self) -> None:
        self.is_open = False  # a head has begun and is not complete
        self._began_in_this_feed = False
        self._fed_bytes = 0
        self._header_bytes = 0

    def begin(self) -> None:
        """Start to count: the first byte of a request was parsed."""
        self.is_open = self._began_in_this_feed = True
        self._fed_bytes = self._header_bytes = 0

    def begin_feed(self) -> None:
        """Note that the parser is about to be fed."""
        self._began_in_this_feed = False

    def has_room_for(self, name: bytes, value: bytes, count: int) -> bool:
        """Count a header that follows `count` others; trailers count as well. False when it is too much."""
        self._header_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        return self._header_bytes <= MAX_HEADER_BYTES and count < MAX_HEADER_COUNT

    def has_room_after(self, fed_bytes: int) -> bool:
        """Count the bytes that were fed; false when the parser may hold more than a head can have."""
        if self.is_open and not self._began_in_this_feed:
            self._fed_bytes += fed_bytes
        return self._fed_bytes <= _MAX_HEAD_BYTES
