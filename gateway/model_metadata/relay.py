"""Relay: stream a file that is not in the cache from where the provider has it.

The rules for files of the cache hold for it: the guard has decided and recorded, the last check is made
before the first byte, and the transfer is cut when its key ends. The exception is that the content was not
pinned: nothing here verifies it, the outcome record says `relayed`, and the client has the digest that the
provider named. No key takes more than its share of the streams.

The URL is the one that the provider gave us for this very key and file; no client ever names one. Of the
request, a single plain range is passed on, and nothing else; of the answer, its status, length and range
(`storage_heads.py`).

A file without a digest is sent whole: see `delivery/file_answer.py` for how the engine handles ranges there.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.delivery.file import Refused
from gateway.delivery.file_answer import OCTETS
from gateway.delivery.headers import caller_headers, content_headers
from gateway.engine.faults import undecided
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.verdicts import Ending, HeldFile, OpenFile, RelayedFile
from gateway.model_metadata.storage_heads import (
    FIRST_BYTE,
    OK,
    UNSATISFIABLE,
    asked_range,
    range_header,
    read_head,
)
from gateway.platform.shares import Shares

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Message, Receive, Send

    from gateway.adapters.provider import Provider, ProviderStream
    from gateway.authorized_files import AuthorizedFiles
    from gateway.delivery.headers import Headers
    from gateway.model.access import Resource, WireRequest
    from gateway.model.stamps import Stamp
    from gateway.model.verdicts import Allowed, Found, Receipt
    from gateway.model_metadata.sealed_urls import ProviderFile, SealedUrls
    from gateway.model_metadata.storage_heads import StorageHead

NOT_FROM_HERE = frozenset({Reason.ABSENT, Reason.UNSERVABLE, Reason.UNATTESTED, Reason.QUARANTINED})
"""The cache's reasons for a file that it does not have, or does not serve as it is on disk."""

STREAMS_OF_A_KEY = 64  # as many as one engine opens; the worker has four times as many for all


class Relay:
    """Finds files at the provider and streams them."""

    def __init__(self, *, provider: Provider, authorized_files: AuthorizedFiles, sealed: SealedUrls) -> None:
        self._provider = provider
        self._authorized_files = authorized_files
        self._sealed = sealed
        self._shares = Shares(STREAMS_OF_A_KEY, patience_seconds=0.0)

    async def find(self, _request: WireRequest, allowed: Allowed) -> tuple[Found, Stamp]:
        """The file as the cache has it; else where the provider has it, if this key was told.

        Where the cache and what the key was last told have different digests, the latter is used. If the key
        was told of the cache's file, and the cache has another content by now, nothing is sent.
        """
        told = await self._find_told(allowed)
        relayed = None if told is None else _relayed(allowed.access.resource, told)
        try:
            found, stamp = await self._authorized_files.find(allowed)
        except Refusal as refusal:
            if relayed is None or refusal.reason not in NOT_FROM_HERE:
                raise
            return relayed, allowed.stamp
        if told is None or not isinstance(found, OpenFile) or found.md5 == told.md5:
            return found, stamp
        if not isinstance(found, HeldFile):
            os.close(found.descriptor)
        if relayed is None:
            raise Refusal(Reason.ABSENT)
        return relayed, allowed.stamp

    async def _find_told(self, allowed: Allowed) -> ProviderFile | None:
        """What this key was told of the file of a link, when it last got that link."""
        resource = allowed.access.resource
        if resource.model is None or resource.package is None or resource.file is None:
            return None
        file = (resource.package, resource.file)
        try:
            return await self._sealed.find(allowed.access.principal.key_id, resource.model, file)
        except Unavailable:
            if not allowed.access.principal.degraded_seconds:
                raise  # the content in the cache could differ from what the key was told
            return None

    async def send(self, receipt: Receipt, receive: Receive, send: Send, *, trace: bytes) -> Ending | Refused:
        """Stream the file of a receipt. Raises `Unavailable` when nothing could be sent, or not all."""
        file, request = receipt.admission.found, receipt.admission.request
        if not isinstance(file, RelayedFile):
            raise TypeError("this receipt is not for a file at the provider")
        if request.method == "HEAD":
            head = await self._look(receipt, file)
            await send(_start(head, file, receipt, trace))
            await send({"type": "http.response.body", "body": b""})
            return Ending.RELAYED
        asked = asked_range(request, file)
        async with self._open(receipt, file.url, range_header(asked)) as answer:
            head = read_head(answer, asked)
            if head.status == UNSATISFIABLE:
                unsatisfied = b"bytes */%d" % (head.size or 0)
                return Refused(reason=Reason.RANGE_NOT_SATISFIABLE, headers=[(b"content-range", unsatisfied)])
            await send(_start(head, file, receipt, trace))
            return await _Stream(answer, head.length, receive, send).run()

    @asynccontextmanager
    async def _open(
        self, receipt: Receipt, url: str, headers: Headers, method: str = "GET"
    ) -> AsyncIterator[ProviderStream]:
        """Open the file, within the share of its key."""
        key_id = receipt.admission.allowed.access.principal.key_id
        async with self._shares.taken(key_id), self._provider.open(url, headers, method=method) as answer:
            yield answer

    async def _look(self, receipt: Receipt, file: RelayedFile) -> StorageHead:
        """The answer to HEAD; where the storage refuses HEAD, by a GET of the first byte.

        A signed URL is often valid only for the one method that it was signed for.
        """
        async with self._open(receipt, file.url, [], "HEAD") as answer:
            if answer.status == OK:
                return read_head(answer, None)
        async with self._open(receipt, file.url, range_header(FIRST_BYTE)) as answer:
            head = read_head(answer, FIRST_BYTE)
            return replace(head, status=OK, length=head.size, content_range=None)


class _Stream:
    """One body being sent."""

    def __init__(self, answer: ProviderStream, length: int | None, receive: Receive, send: Send) -> None:
        self._answer = answer
        self._left = length
        self._receive = receive
        self._send = send

    async def run(self) -> Ending:
        """Send every chunk as it comes. A body that ends early, or exceeds its length, is cut.

        A client that has the announced length has the whole file and may close, so that chunk is the last.
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
        """Send a chunk; whether the client was still connected."""
        try:
            await self._send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        except OSError:  # what servers raise when the connection is gone (ASGI 2.4)
            return False
        return True


def _relayed(file: Resource, told: ProviderFile) -> RelayedFile | None:
    """The file at the provider; None when the key was told that it is in the cache."""
    if told.url is None or file.model is None or file.package is None or file.file is None:
        return None
    return RelayedFile(model=file.model, package=file.package, handle=file.file, md5=told.md5, url=told.url)


def _start(head: StorageHead, file: RelayedFile, receipt: Receipt, trace: bytes) -> Message:
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
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
