"""Relay: a file that is not in the cache, streamed from where the provider has it.

Whatever holds for a file of the cache holds for it: the guard has decided and recorded, the last check is
made before the first byte, and the transfer is cut when its key ends. What cannot hold is that the content
was pinned: nothing here vouches for it, the outcome record says `relayed`, and the client has the digest
that the provider named.

The URL is the one that the provider gave us for this very key and file; no client ever names one. Of the
request, a single plain range is passed on, and nothing else; of the answer, its status, length and range.

A file without a digest comes whole: see `delivery/plan.py` for what the engine makes of ranges there.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.delivery.file import Refused
from gateway.delivery.headers import caller_headers, content_headers
from gateway.delivery.plan import OCTETS
from gateway.engine.faults import undecided
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Ending, HeldFile, OpenFile, RelayedFile

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send

    from gateway.adapters.provider import Provider, ProviderStream
    from gateway.delivery.headers import Headers
    from gateway.holdings import Holdings
    from gateway.model.access import WireRequest
    from gateway.model.facts import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt
    from gateway.sealed_urls import SealedUrls

NOT_FROM_HERE = frozenset({Reason.ABSENT, Reason.UNSERVABLE, Reason.UNATTESTED, Reason.QUARANTINED})
"""What the cache says of a file that it does not have, or does not serve as it lies there."""

_RANGE = re.compile(rb"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")
_CONTENT_RANGE = re.compile(rb"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18})")
_LENGTH = re.compile(rb"[0-9]{1,18}")

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_FIRST_BYTE = b"bytes=0-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What the provider's answer comes to."""

    status: int
    length: int | None
    size: int | None  # of the whole file
    content_range: bytes | None
    has_ranges: bool


class Relay:
    """Finds files at the provider and streams them."""

    def __init__(self, *, provider: Provider, holdings: Holdings, sealed: SealedUrls) -> None:
        self._provider = provider
        self._holdings = holdings
        self._sealed = sealed

    async def find(self, _request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
        """The file as the cache has it; else where the provider has it, if this key was told.

        What was told goes before what lies in the cache, where the two have another digest.
        """
        told = await self._find_told(allowed)
        try:
            found, stamp = await self._holdings.find(allowed)
        except Refusal as refusal:
            if told is None or refusal.reason not in NOT_FROM_HERE:
                raise
            return told, allowed.stamp
        if told is None or not isinstance(found, OpenFile) or found.md5 == told.md5:
            return found, stamp
        if not isinstance(found, HeldFile):
            os.close(found.descriptor)
        return told, allowed.stamp

    async def _find_told(self, allowed: Allowed) -> RelayedFile | None:
        """Where the provider has the file of a link, by what it told this key when the link was made."""
        resource = allowed.access.resource
        if resource.model is None or resource.package is None or resource.file is None:
            return None
        file = (resource.package, resource.file)
        try:
            place = await self._sealed.find(allowed.access.principal.key_id, resource.model, file)
        except Unavailable:
            if not allowed.access.principal.degraded_seconds:
                raise  # what the cache has could be another content than was told of
            return None
        if place is None:
            return None
        return RelayedFile(
            model=resource.model, package=file[0], handle=file[1], md5=place.md5, url=place.url
        )

    async def send(self, receipt: Receipt, receive: Receive, send: Send, *, trace: bytes) -> Ending | Refused:
        """Stream the file of a receipt. Raises `Unavailable` when nothing could be sent, or not all."""
        file, request = receipt.admission.found, receipt.admission.request
        if not isinstance(file, RelayedFile):
            raise TypeError("this receipt is not for a file at the provider")
        if request.method == "HEAD":
            head = await self._look(file)
            await send(_start(head, file, receipt, trace))
            await send({"type": "http.response.body", "body": b""})
            return Ending.RELAYED
        asked = _asked_range(request, file)
        async with self._provider.open(file.url, _range_header(asked)) as answer:
            head = _read_head(answer, has_asked=asked is not None)
            if head.status == _UNSATISFIABLE:
                unsatisfied = b"bytes */%d" % (head.size or 0)
                return Refused(reason=Reason.RANGE_NOT_SATISFIABLE, headers=[(b"content-range", unsatisfied)])
            await send(_start(head, file, receipt, trace))
            return await _Stream(answer, head.length, receive, send).run()

    async def _look(self, file: RelayedFile) -> _Head:
        """What GET would answer, by HEAD; where that is refused, by a GET of the first byte.

        A signed URL is often good for the one method only that it was signed for.
        """
        async with self._provider.open(file.url, (), method="HEAD") as answer:
            if answer.status == _OK:
                return _read_head(answer, has_asked=False)
        async with self._provider.open(file.url, _range_header(_FIRST_BYTE)) as answer:
            head = _read_head(answer, has_asked=True)
            return replace(head, status=_OK, length=head.size, content_range=None)


class _Stream:
    """One body under way."""

    def __init__(self, answer: ProviderStream, length: int | None, receive: Receive, send: Send) -> None:
        self._answer = answer
        self._left = length
        self._receive = receive
        self._send = send

    async def run(self) -> Ending:
        """Send every piece as it comes. What ends early, or goes on beyond its length, is cut.

        Whoever has the announced length has the whole file and may leave, so that piece is the last.
        """
        gone = asyncio.ensure_future(_disconnected(self._receive))
        try:
            if self._left != 0:
                async for piece in self._answer.aiter_raw():
                    is_last = self._is_last(piece)
                    if gone.done() or not await self._hand_over(piece, is_last=is_last):
                        return Ending.CLIENT_GONE
                    if is_last:
                        return Ending.RELAYED
                if self._left:
                    raise undecided("the provider ended a file before its end")
            return Ending.RELAYED if await self._hand_over(b"", is_last=True) else Ending.CLIENT_GONE
        finally:
            gone.cancel()

    def _is_last(self, piece: bytes) -> bool:
        if self._left is None:
            return False
        self._left -= len(piece)
        if self._left < 0:
            raise undecided("the provider sent more than it had announced")
        return self._left == 0

    async def _hand_over(self, piece: bytes, *, is_last: bool) -> bool:
        """Whether there was somebody to take it."""
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        except OSError:  # what servers raise when the connection is gone (ASGI 2.4)
            return False
        return True


def _asked_range(request: WireRequest, file: RelayedFile) -> bytes | None:
    """The range to pass on; a form that servers read differently is none, and the whole is sent."""
    values = [value.strip(b" \t") for name, value in request.headers if name == b"range"]
    conditional = request.header(b"if-range") is not None
    if file.md5 is None or conditional or len(values) != 1 or not _RANGE.fullmatch(values[0]):
        return None
    return values[0]


def _read_head(answer: ProviderStream, *, has_asked: bool) -> _Head:
    """What the answer is. Raises `Unavailable` for one that is no part and no whole of a file."""
    headers = {name.lower(): value for name, value in answer.headers}
    if answer.status not in ({_OK, _PARTIAL, _UNSATISFIABLE} if has_asked else {_OK}):
        raise undecided(f"the provider's storage answered {answer.status}")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise undecided("the provider's storage sent an encoded file")
    length = headers.get(b"content-length", b"")
    size = int(length) if _LENGTH.fullmatch(length) else None
    if answer.status == _OK:
        has_ranges = headers.get(b"accept-ranges", b"").lower() == b"bytes"
        return _Head(status=_OK, length=size, size=size, content_range=None, has_ranges=has_ranges)
    match = _CONTENT_RANGE.fullmatch(headers.get(b"content-range", b""))
    is_partial = answer.status == _PARTIAL
    if match is None or is_partial == (match[1] is None):
        raise undecided("the provider's storage did not say which part it sent")
    if is_partial and (size is None or size != int(match[2]) - int(match[1]) + 1):
        raise undecided("the provider's storage sent another part than it said")
    return _Head(
        status=answer.status, length=size, size=int(match[3]), content_range=match[0], has_ranges=is_partial
    )


def _range_header(asked: bytes | None) -> Headers:
    return [] if asked is None else [(b"range", asked)]


def _start(head: _Head, file: RelayedFile, receipt: Receipt, trace: bytes) -> Message:
    described: Headers = [(b"content-type", OCTETS)]
    if head.length is not None:
        described = content_headers(OCTETS, head.length)
    if head.content_range is not None:
        described.append((b"content-range", head.content_range))
    if head.has_ranges and file.md5 is not None:
        described.append((b"accept-ranges", b"bytes"))
    headers = [*described, *caller_headers(receipt, trace)]
    return {"type": "http.response.start", "status": head.status, "headers": headers}


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
