"""Answers: what a face says to a request, as a value. Nothing here sends anything.

A face is a function from what was decided to an `Answer`. One module sends answers through ASGI
(`middleware/sending.py`), another writes them from within the server's parser (`middleware/at_once.py`). Both
add what binds an answer to its record: `cachegate-record` and `traceparent`.

A body is bytes, parts of an open file, or a stream from somewhere else. The answer to HEAD is the answer to
GET; whoever sends it leaves the body out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.model.header_block import Headers
    from gateway.model.verdicts import Ending, OpenFile


class Span(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A byte range of a file."""

    offset: int
    count: int

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.count

    def content_range(self, size: int) -> bytes:
        """The value of Content-Range for it (RFC 9110, 14.4)."""
        return b"bytes %d-%d/%d" % (self.offset, self.end - 1, size)


class OnHashed(Protocol):
    """Called with the hashes of a file that was read whole, when all but its last step was sent."""

    async def __call__(self, file: OpenFile, *, md5: str, sha256: str) -> object:
        """Pin the file. Raises `Refusal` when the content is not what it has to be.

        Raises `Unavailable` when that cannot be known now.
        """


class FileParts(msgspec.Struct, frozen=True, kw_only=True):
    """A body made of ranges of an open file, and of bytes between them, in order."""

    file: OpenFile
    pieces: tuple[bytes | Span, ...]
    length: int
    on_hashed: OnHashed  # for a file that is not pinned yet, and is hashed while it is sent


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """A body that comes from elsewhere. Whoever sends the answer calls `close`, whatever happens.

    `pieces` raises when the body cannot be had as it was announced. `ending` is how it ends when all of it
    was sent.
    """

    pieces: AsyncIterator[bytes]
    length: int | None
    close: Callable[[], Awaitable[object]]
    ending: Ending


Body = bytes | FileParts | Streamed


class Answer(msgspec.Struct, frozen=True):
    """Status, headers and body. `ending` is set where the body is sent by somebody else (a proxy)."""

    status: int
    headers: Headers
    body: Body = b""
    ending: Ending | None = None
