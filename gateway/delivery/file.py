"""Sends the file that a Receipt admits: whole, a range, several ranges, or headers only.

A body is sent in steps and with constant memory: by zero-copy where the server offers it, else through this
process's memory. Where RFC 9110 demands an answer other than the file, a `Refused` is returned and nothing
was sent; the caller writes that answer.

Nothing here decides who may read: that was decided and recorded before the Receipt was made.
"""

from __future__ import annotations

import asyncio
import errno
from io import UnsupportedOperation
from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.handoff import handoff_headers
from gateway.delivery.headers import Headers, caller_headers
from gateway.delivery.steps import INLINE_BYTES, Copied, Hashed, ZeroCopied, steps_of
from gateway.delivery.unchanged import CutError, unsent, verify_unchanged
from gateway.model.errors import Reason
from gateway.model.extensions import LOOKS, ZERO_COPY
from gateway.model.verdicts import Ending, OpenFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Message, Receive, Scope, Send

    from gateway.delivery.file_answer import FileAnswer
    from gateway.delivery.ranges import Span
    from gateway.delivery.steps import OnHashed, Source
    from gateway.model.verdicts import Receipt


async def _keep_nothing(file: OpenFile, *, md5: str, sha256: str) -> None:
    """The default for an app without pins: the hashes are known for this transfer only."""


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """How files are sent in this installation; the same for all requests."""

    accel_prefix: str | None = None
    on_hashed: OnHashed = _keep_nothing


class Sent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer was sent. `ending` says why it was cut, if it was; `sha256` is set if it was hashed."""

    ending: Ending | None = None
    sha256: str | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing was sent. The client is to be told the reason, with these headers."""

    reason: Reason
    headers: Headers
    ending: Ending | None = None


PLAIN = Means()

_CLIENT_GONE = frozenset({errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""In addition to errors with a class of their own (`EPIPE` and the like are `ConnectionError`s)."""


async def send_file(
    receipt: Receipt, scope: Scope, receive: Receive, send: Send, *, trace: bytes, means: Means = PLAIN
) -> Sent | Refused:
    """Send the file of a receipt in the form that the request asks for.

    Raises `Unavailable` when the file changed, or cannot be read, before anything was sent.
    """
    file, request = receipt.admission.found, receipt.admission.request
    if not isinstance(file, OpenFile):
        raise TypeError("this receipt is not for a file")
    try:
        verify_unchanged(file)
        plan = plan_delivery(
            request.method, request.headers, size=file.size, sha256=file.sha256, is_blob=file.md5 is not None
        )
        if plan.reason is not None:
            return Refused(reason=plan.reason, headers=plan.headers)
        handoff = handoff_headers(plan, file, means.accel_prefix, request.headers)
        start = {
            "type": "http.response.start",
            "status": 200 if handoff else plan.status,
            "headers": [*(handoff or plan.headers), *caller_headers(receipt, trace)],
        }
        if handoff or not plan.pieces:
            await send(start)
            await send({"type": "http.response.body", "body": b""})
            return Sent(ending=Ending.HANDED_OFF if handoff else None)
        source = _source(file, plan, scope, means)
        return await _Body(start, source, file, receive, send).run(plan)
    except CutError as cut:
        if cut.ending is Ending.QUARANTINED:
            return Refused(reason=cut.reason, headers=[], ending=cut.ending)
        raise unsent(file, cut) from cut


def _source(file: OpenFile, plan: FileAnswer, scope: Scope, means: Means) -> Source:
    if file.sha256 is None:
        return Hashed(file, means.on_hashed)
    offer = (scope.get("extensions") or {}).get(ZERO_COPY) or {}
    # A server that offers zero-copy but not these checks would not verify the file between its steps.
    if plan.length > INLINE_BYTES and LOOKS in offer:
        return ZeroCopied(file)
    return Copied(file)


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

    async def run(self, plan: FileAnswer) -> Sent:
        """Send every step. Raises `CutError` only while nothing was sent."""
        try:
            if not await self._went_out(plan.pieces):
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
                self._gone = asyncio.ensure_future(_disconnected(self._receive))
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


def _is_of_the_client(error: OSError) -> bool:
    """Whether a `send` failed because the connection is gone. Other errors are of the disk or the machine.

    By ASGI 2.4 a server may raise any `OSError` for it. One that the server makes up has no errno.
    """
    return (
        isinstance(error, (ConnectionError, TimeoutError))
        or error.errno is None
        or error.errno in _CLIENT_GONE
    )


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone: some servers silently drop what is sent after that."""
    while (await receive())["type"] != "http.disconnect":
        pass
