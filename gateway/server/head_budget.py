"""How much of a request's head is taken in, counted as it comes.

The parser gathers each header whole before it shows it, so two counts are kept: what it has shown of
this head, and what it was fed since the head began, which bounds what it may be holding. A head that
began in the middle of a read is counted from the next one on.
"""

from __future__ import annotations

from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES

_HEADER_OVERHEAD_BYTES = 4  # the colon, a blank and the line end
_MAX_HEAD_BYTES = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 1024


class HeadBudget:
    """The head of one request after the other."""

    __slots__ = ("_began_in_this_feed", "_fed_bytes", "_header_bytes", "is_open")

    def __init__(self) -> None:
        self.is_open = False  # a head has begun and is not complete
        self._began_in_this_feed = False
        self._fed_bytes = 0
        self._header_bytes = 0

    def begin(self) -> None:
        """A request's first byte."""
        self.is_open = self._began_in_this_feed = True
        self._fed_bytes = self._header_bytes = 0

    def begin_feed(self) -> None:
        """The parser is about to be fed."""
        self._began_in_this_feed = False

    def has_room_for(self, name: bytes, value: bytes, count: int) -> bool:
        """Take in a header, of so many before it; trailers count as well."""
        self._header_bytes += len(name) + len(value) + _HEADER_OVERHEAD_BYTES
        return self._header_bytes <= MAX_HEADER_BYTES and count < MAX_HEADER_COUNT

    def has_room_after(self, fed_bytes: int) -> bool:
        """The parser was fed so much; false when it may be holding more than a head can have."""
        if self.is_open and not self._began_in_this_feed:
            self._fed_bytes += fed_bytes
        return self._fed_bytes <= _MAX_HEAD_BYTES
