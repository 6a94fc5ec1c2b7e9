"""A body in steps: what is handed to the server at once, and where it comes from.

Each step is confirmed against the open file: a blob that is truncated or rewritten meanwhile is cut
off, so that no client holds a complete body made of two files. Where we read, the look comes after
the reading, so what was read is what was opened. With zero-copy a step of ours is many of the
server's, so it is given the look to take before each of them and after the last; a server that does not
take it is sent copies. The kernel may read
a page as late as when it leaves the machine; a writer who rewrites in place after that look is beyond
us, and the read-only mount is what stands against it.

`Hashed` is for a file that is not pinned yet: it comes whole, hashed on the way, and its last step is
held back until the content is what its name says. So no client ever holds a complete file that
nobody has checked.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any, Protocol

from gateway.delivery.ranges import Span
from gateway.delivery.unchanged import CutError, verify_unchanged
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.extensions import VERIFY, ZERO_COPY
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model.verdicts import OpenFile

READ_BYTES = 1 << 20  # what one client makes us hold; larger steps did not get faster
ZERO_COPY_BYTES = 64 << 20  # holds nothing; the server makes many steps of it, each with its look
INLINE_BYTES = 1 << 16  # read on the event loop: up to here a thread costs more than the read


class OnHashed(Protocol):
    """Told what a file holds that was read whole and sent but for its last step."""

    async def __call__(self, file: OpenFile, *, md5: str, sha256: str) -> object:
        """Pin it. Raises `Refusal` when it is not what it has to be.

        Raises `Unavailable` when that cannot be known now.
        """


class Source(Protocol):
    """Where the steps of one body come from."""

    step_bytes: int
    is_told_of_leaving: bool  # the server's `send` raises once the client has gone, so nobody has to watch

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:
        """The ASGI message of a step, confirmed. Raises `CutError` when it must not be sent."""


def steps_of(pieces: Sequence[bytes | Span], step_bytes: int) -> Iterator[tuple[bytes | Span, bool]]:
    """The pieces, none longer than a step, and whether each is the last."""
    for number, piece in enumerate(pieces, start=1):
        is_last_piece = number == len(pieces)
        if not isinstance(piece, Span):
            yield piece, is_last_piece
            continue
        for offset in range(piece.offset, piece.end, step_bytes):
            count = min(step_bytes, piece.end - offset)
            yield Span(offset=offset, count=count), is_last_piece and offset + count == piece.end


class Copied:
    """Through our memory, for servers that know nothing else, and for what is small."""

    step_bytes = READ_BYTES
    is_told_of_leaving = False

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:  # noqa: ARG002 -- it has nothing to finish
        """As `Source`."""
        if isinstance(step, Span):
            if step.count <= INLINE_BYTES:
                step = read_exactly(self._file, step)
            else:
                step = await asyncio.get_running_loop().run_in_executor(None, read_exactly, self._file, step)
        verify_unchanged(self._file)
        return {"type": "http.response.body", "body": step}


class ZeroCopied:
    """By the ASGI extension: the server has the kernel move the bytes before its `send` returns."""

    step_bytes = ZERO_COPY_BYTES
    is_told_of_leaving = True

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._copied = Copied(file)

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:
        """As `Source`. What is small costs less when it is copied."""
        if not isinstance(step, Span) or step.count <= INLINE_BYTES:
            return await self._copied.fetch(step, is_last=is_last)
        verify_unchanged(self._file)
        place = {"file": self._file.descriptor, "offset": step.offset, "count": step.count}
        return {"type": ZERO_COPY, **place, VERIFY: partial(verify_unchanged, self._file)}


class Hashed:
    """Through our memory and two hash functions."""

    step_bytes = READ_BYTES
    is_told_of_leaving = False

    def __init__(self, file: OpenFile, on_hashed: OnHashed) -> None:
        self.sha256: str | None = None  # of the whole, once it was found to be what it has to be
        self._file = file
        self._on_hashed = on_hashed
        self._md5 = md5(usedforsecurity=False)
        self._sha256 = sha256()

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:
        """As `Source`."""
        if isinstance(step, Span):
            step = await asyncio.get_running_loop().run_in_executor(None, self._read, step)
        verify_unchanged(self._file)
        if is_last:
            await self._settle()
        return {"type": "http.response.body", "body": step}

    def _read(self, span: Span) -> bytes:
        content = read_exactly(self._file, span)
        self._md5.update(content)
        self._sha256.update(content)
        return content

    async def _settle(self) -> None:
        """Raises `CutError` unless the content is what it is called, and what it is pinned to elsewhere."""
        md5_found, sha256_found = self._md5.hexdigest(), self._sha256.hexdigest()
        try:
            await self._on_hashed(self._file, md5=md5_found, sha256=sha256_found)
        except Refusal as refusal:
            raise CutError(Ending.QUARANTINED, refusal.reason) from refusal
        except Unavailable as failure:
            raise CutError(Ending.UNDECIDED, failure.reason) from failure
        if self._file.md5 not in {None, md5_found}:
            raise CutError(Ending.QUARANTINED, Reason.QUARANTINED)
        verify_unchanged(self._file)
        self.sha256 = sha256_found


def read_exactly(file: OpenFile, span: Span) -> bytes:
    """A stretch of the file. Raises `CutError` when it is not all there."""
    try:
        content = os.pread(file.descriptor, span.count, span.offset)
    except OSError as error:
        raise CutError(Ending.FAILED, Reason.CACHE_UNAVAILABLE) from error
    if len(content) != span.count:
        raise CutError.changed()
    return content
