"""The steps of a body: how much is given to the server at once, and from which source it is read.

Each step is verified against the open file: when a blob is truncated or rewritten during the transfer, the
answer is cut, so that no client holds a complete body made of two files. Where this process reads, it
verifies after reading, so what was read is what was opened. With zero-copy one step here is many of the
server's, so the server is given a check to run before each of them and after the last; a server that does
not run it gets copies instead. The kernel may read a page as late as when it leaves the machine. A writer
who rewrites the file in place after the check cannot be detected here; the read-only mount prevents it.

`Hashed` is for a file that is not pinned yet: it is sent whole and hashed meanwhile, and its last step is
held back until the content matches its MD5. So no client ever holds a complete file that was not checked.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from hashlib import md5, sha256
from typing import TYPE_CHECKING, Any, Protocol

from gateway.delivery.unchanged import CutError, verify_unchanged
from gateway.model.answers import Span
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.extensions import VERIFY, ZERO_COPY
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.model.answers import OnHashed
    from gateway.model.verdicts import OpenFile

READ_BYTES = 1 << 20  # memory that one client can make us hold; larger steps were not faster
ZERO_COPY_BYTES = 64 << 20  # holds no memory; the server makes many steps of it, each with its check
INLINE_BYTES = 1 << 16  # up to here read on the event loop: a thread would cost more than the read


class Source(Protocol):
    """Reads the steps of one body."""

    step_bytes: int
    is_told_of_leaving: bool  # the server's `send` raises once the client has gone, so no watcher is needed

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:
        """The ASGI message of a step, after verification. Raises `CutError` when it must not be sent."""


def steps_of(pieces: Sequence[bytes | Span], step_bytes: int) -> Iterator[tuple[bytes | Span, bool]]:
    """Split the pieces into steps, each with whether it is the last."""
    for number, piece in enumerate(pieces, start=1):
        is_last_piece = number == len(pieces)
        if not isinstance(piece, Span):
            yield piece, is_last_piece
            continue
        for offset in range(piece.offset, piece.end, step_bytes):
            count = min(step_bytes, piece.end - offset)
            yield Span(offset=offset, count=count), is_last_piece and offset + count == piece.end


class Copied:
    """Copies through this process's memory, for servers without zero-copy, and for small pieces."""

    step_bytes = READ_BYTES
    is_told_of_leaving = False

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:  # noqa: ARG002 -- part of `Source`; not needed here
        """As `Source`."""
        if isinstance(step, Span):
            if step.count <= INLINE_BYTES:
                step = read_exactly(self._file, step)
            else:
                step = await asyncio.get_running_loop().run_in_executor(None, read_exactly, self._file, step)
        verify_unchanged(self._file)
        return {"type": "http.response.body", "body": step}


class ZeroCopied:
    """Uses the ASGI extension: the server has the kernel send the bytes before its `send` returns."""

    step_bytes = ZERO_COPY_BYTES
    is_told_of_leaving = True

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._copied = Copied(file)

    async def fetch(self, step: bytes | Span, *, is_last: bool) -> dict[str, Any]:
        """As `Source`. Small pieces cost less when they are copied."""
        if not isinstance(step, Span) or step.count <= INLINE_BYTES:
            return await self._copied.fetch(step, is_last=is_last)
        verify_unchanged(self._file)
        place = {"file": self._file.descriptor, "offset": step.offset, "count": step.count}
        return {"type": ZERO_COPY, **place, VERIFY: partial(verify_unchanged, self._file)}


class Hashed:
    """Copies through this process's memory, and hashes with MD5 and SHA-256."""

    step_bytes = READ_BYTES
    is_told_of_leaving = False

    def __init__(self, file: OpenFile, on_hashed: OnHashed) -> None:
        self.sha256: str | None = None  # of the whole file, once the content was found to be right
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
            await self._verify_content()
        return {"type": "http.response.body", "body": step}

    def _read(self, span: Span) -> bytes:
        content = read_exactly(self._file, span)
        self._md5.update(content)
        self._sha256.update(content)
        return content

    async def _verify_content(self) -> None:
        """Raises `CutError` unless the content matches its MD5, and its pin if another node pinned it."""
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
    """Read a span of the file. Raises `CutError` when it is not all there."""
    try:
        content = os.pread(file.descriptor, span.count, span.offset)
    except OSError as error:
        raise CutError(Ending.FAILED, Reason.CACHE_UNAVAILABLE) from error
    if len(content) != span.count:
        raise CutError.changed()
    return content
