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

import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.delivery.file_answer import RefusedFile
from gateway.delivery.handoff import OCTETS
from gateway.delivery.headers import REVALIDATED, content_headers
from gateway.engine.faults import undecided
from gateway.model.answers import Answer, Streamed
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.header_block import Headers
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

    from gateway.adapters.provider import Provider, ProviderStream
    from gateway.authorized_files import AuthorizedFiles
    from gateway.delivery.headers import Pair
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

    async def answer(self, receipt: Receipt) -> Answer | RefusedFile:
        """The answer with the file of a receipt, a stream. Raises `Unavailable` when it cannot be had."""
        file, request = receipt.admission.found, receipt.admission.request
        if not isinstance(file, RelayedFile):
            raise TypeError("this receipt is not for a file at the provider")
        if request.method == "HEAD":
            head = await self._look(receipt, file)
            return Answer(head.status, _describe(head, file), ending=Ending.RELAYED)
        asked = asked_range(request, file)
        async with AsyncExitStack() as stack:
            provider = await stack.enter_async_context(self._open(receipt, file.url, range_header(asked)))
            head = read_head(provider, asked)
            if head.status == UNSATISFIABLE:
                unsatisfied = b"bytes */%d" % (head.size or 0)
                return RefusedFile(
                    reason=Reason.RANGE_NOT_SATISFIABLE, headers=((b"content-range", unsatisfied),)
                )
            body = Streamed(
                pieces=_pieces(provider, head.length),
                length=head.length,
                close=stack.pop_all().aclose,
                ending=Ending.RELAYED,
            )
            return Answer(head.status, _describe(head, file), body)

    @asynccontextmanager
    async def _open(
        self, receipt: Receipt, url: str, headers: list[Pair], method: str = "GET"
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


async def _pieces(provider: ProviderStream, length: int | None) -> AsyncIterator[bytes]:
    """The pieces of a body. Raises `Unavailable` when it ends early, or is longer than was announced."""
    left = length
    async for piece in provider.aiter_raw():
        if left is not None:
            left -= len(piece)
            if left < 0:
                raise undecided("the provider sent more than it had announced")
        yield piece
    if left:
        raise undecided("the provider ended a file before its end")


def _relayed(file: Resource, told: ProviderFile) -> RelayedFile | None:
    """The file at the provider; None when the key was told that it is in the cache."""
    if told.url is None or file.model is None or file.package is None or file.file is None:
        return None
    return RelayedFile(model=file.model, package=file.package, handle=file.file, md5=told.md5, url=told.url)


def _describe(head: StorageHead, file: RelayedFile) -> Headers:
    described: list[Pair] = [(b"content-type", OCTETS)]
    if head.length is not None:
        described = [*content_headers(OCTETS, head.length)]
    if head.content_range is not None:
        described.append((b"content-range", head.content_range))
    if head.has_ranges and file.md5 is not None:
        described.append((b"accept-ranges", b"bytes"))
    return Headers.of(*described, *REVALIDATED)
