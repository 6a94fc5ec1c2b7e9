"""Sends a body that consists of parts of an open file, through ASGI.

It is sent in steps and with constant memory: by zero-copy where the server offers it, else through this
process's memory.

Nothing here decides who may read: that was decided and recorded before the answer was made.
"""

from __future__ import annotations

import asyncio
import errno
from io import UnsupportedOperation
from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.steps import INLINE_BYTES, Copied, Hashed, ZeroCopied, steps_of
from gateway.delivery.unchanged import CutError
from gateway.model.errors import Reason
from gateway.model.extensions import LOOKS, ZERO_COPY
from gateway.model.verdicts import Ending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Message, Receive, Scope, Send

    from gateway.delivery.steps import Source
    from gateway.model.answers import FileParts, Span
    from gateway.model.verdicts import OpenFile


class Sent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer was sent. `ending` says why it was cut, if it was; `sha256` is set if it was hashed."""

    ending: Ending | None = None
    sha256: str | None = None


_CLIENT_GONE = frozenset({errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""In addition to errors with a class of their own (`EPIPE` and the like are `ConnectionError`s)."""


async def send_parts(start: Message, parts: FileParts, scope: Scope, receive: Receive, send: Send) -> Sent:
    """Send an answer with this body, after the message that starts it.

    Raises `CutError` when the file changed, or cannot be read, before anything was sent.
    """
    source = _source(parts, scope)
    return await _Body(start, source, parts.file, receive, send).run(parts.pieces)


def _source(parts: FileParts, scope: Scope) -> Source:
    if parts.file.sha256 is None:
        return Hashed(parts.file, parts.on_hashed)
    offer = (scope.get("extensions") or {}).get(ZERO_COPY) or {}
    # A server that offers zero-copy but not these checks would not verify the file between its steps.
    if parts.length > INLINE_BYTES and LOOKS in offer:
        return ZeroCopied(parts.file)
    return Copied(parts.file)


class _Body:
    """One body being sent."""

    def __init__(self, start: Message, source: Source, file: OpenFile, receive: Receive, send: Send) -> None:
        self._start = start
        self._source = source
        self._file = file
        self._receive = receive
        self._send = send
        self._has_begun = False
        self._gone: asyncio.Future[None] | None = None

    async def run(self, pieces: Sequence[bytes | Span]) -> Sent:
        """Send every step. Raises `CutError` only while nothing was sent."""
        try:
            if not await self._went_out(pieces):
                return Sent(ending=Ending.CLIENT_GONE)
        except CutError as cut:
            if not self._has_begun:
                raise
            return Sent(ending=cut.ending)
        finally:
            if self._gone is not None:
                self._gone.cancel()
        return Sent(sha256=self._source.sha256 if isinstance(self._source, Hashed) else None)

    async def _went_out(self, pieces: Sequence[bytes | Span]) -> bool:
        """Send all pieces; false when the client has gone."""
        steps = steps_of(pieces, self._source.step_bytes)
        for step, is_last in steps:
            message = await self._source.fetch(step, is_last=is_last)
            if self._gone is None and not is_last and not self._source.is_told_of_leaving:
                self._gone = asyncio.ensure_future(disconnected(self._receive))
            if self._gone is not None and self._gone.done():
                return False
            try:
                if not await self._hand_over({**message, "more_body": not is_last}):
                    return False
            except UnsupportedOperation:  # by this file system; nothing of this step was sent
                self._source = Copied(self._file)
                return await self._went_out([step, *(rest for rest, _ in steps)])
        return True

    async def _hand_over(self, message: Message) -> bool:
        """Send one message; false when the client has gone."""
        try:
            if not self._has_begun:
                await self._send(self._start)
                self._has_begun = True
            await self._send(message)
        except EOFError:  # our server raises it when the file ends before the range does
            raise CutError.changed() from None
        except UnsupportedOperation:
            raise
        except OSError as error:
            if _is_of_the_client(error):
                return False
            raise CutError(Ending.FAILED, Reason.CACHE_UNAVAILABLE) from error
        return True


def ending_of(error: BaseException | None) -> Ending:
    """How a transfer ended that was ended by this error, or by none."""
    if error is None:
        return Ending.COMPLETE
    if isinstance(error, CutError):
        return error.ending
    if isinstance(error, EOFError):
        return Ending.CHANGED_ON_DISK
    return Ending.CLIENT_GONE if isinstance(error, OSError) and _is_of_the_client(error) else Ending.FAILED


def _is_of_the_client(error: OSError) -> bool:
    """Whether a `send` failed because the connection is gone. Other errors are of the disk or the machine.

    By ASGI 2.4 a server may raise any `OSError` for it. One that the server makes up has no errno.
    """
    return (
        isinstance(error, (ConnectionError, TimeoutError))
        or error.errno is None
        or error.errno in _CLIENT_GONE
    )


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone: some servers silently drop what is sent after that."""
    while (await receive())["type"] != "http.disconnect":
        pass
