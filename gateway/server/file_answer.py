"""Sends an answer that was made at once and whose body is in a file: the head, then the file by `sendfile`.

What can be sent without waiting goes out in the same event loop iteration as the head: a short range, whose
pages are in memory, to a client that has room for it. Such an answer needs no task. For all others a task
goes on with the first byte that was not sent, as for an answer of the application (`file_span.py`): in steps,
with the same checks before each of them.

An answer that cannot be completed ends its connection: its length was announced.
"""

from __future__ import annotations

import asyncio
import os
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Protocol

from gateway.model.answers import Span
from gateway.server.file_span import RangeCallbacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.model.at_once import FileBody, Watch
    from gateway.server.file_sender import FileSender
    from gateway.server.flow import Flow

COPIED_BYTES = 1 << 20  # in one step, where the file system has no `sendfile`


class ConnectionOfFile(Protocol):
    """What such an answer needs of its connection."""

    transport: asyncio.Transport
    flow: Flow

    def abort(self) -> None:
        """Reset the connection."""


class FileAnswer:
    """One answer on its way. `on_sent` is called once it is complete."""

    def __init__(
        self, body: FileBody, connection: ConnectionOfFile, sender: FileSender, on_sent: Callable[[], None]
    ) -> None:
        self._body = body
        self._connection = connection
        self._sender = sender
        self._on_sent = on_sent
        self._sent_bytes = 0
        self._has_ended = False

    def begin(self, head: bytes) -> bool:
        """Send the head, and what can be sent now; whether `finish` has to be called."""
        body, first = self._body, self._body.pieces[0]
        try:
            if isinstance(first, Span):
                looks = RangeCallbacks(on_sent=self._count, verify=body.verify)
                self._sender.send_first(head, body.file, first.offset, first.count, looks)
            else:
                body.verify()
                self._connection.transport.write(head)
        except Exception as error:  # noqa: BLE001 -- the caller is the server; `on_end` says what it was
            self._end(error)
            return False
        if len(body.pieces) == 1 and isinstance(first, Span) and self._sent_bytes == first.count:
            self._end(None)
            return False
        return True

    async def finish(self) -> None:
        """Send the rest."""
        first, *others = self._body.pieces
        if isinstance(first, Span) and self._sent_bytes:
            first = Span(offset=first.offset + self._sent_bytes, count=first.count - self._sent_bytes)
        try:
            watch = self._body.watch()
            await self._send(first, watch)
            for piece in others:
                await self._sender.give_way()
                await self._send(piece, watch)
        except BaseException as error:
            self._end(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._end(None)

    def give_up(self, _task: asyncio.Task[None]) -> None:
        """End the answer where the task of `finish` is over, and was cancelled before it began."""
        if not self._has_ended:
            self._end(asyncio.CancelledError())

    async def _send(self, piece: bytes | Span, watch: Watch) -> None:
        body = self._body
        if not isinstance(piece, Span):
            await watch.verify()
            await self._write(piece)
            return
        looks = RangeCallbacks(on_sent=self._count, verify=body.verify, watch=watch)
        try:
            await self._sender.send(body.file, piece.offset, piece.count, looks)
        except UnsupportedOperation:  # by this file system; nothing of this piece was sent
            await self._copy(piece, watch)

    async def _copy(self, span: Span, watch: Watch) -> None:
        loop = asyncio.get_running_loop()
        for offset in range(span.offset, span.end, COPIED_BYTES):
            count = min(COPIED_BYTES, span.end - offset)
            await watch.verify()
            content = await loop.run_in_executor(None, os.pread, self._body.file, count, offset)
            self._body.verify()
            if len(content) != count:
                raise EOFError
            await self._write(content)

    async def _write(self, content: bytes) -> None:
        await self._connection.flow.drain()
        if self._connection.transport.is_closing():
            raise ConnectionResetError
        self._connection.transport.write(content)
        self._count(len(content))

    def _count(self, sent: int) -> None:
        self._sent_bytes += sent

    def _end(self, error: BaseException | None) -> None:
        self._has_ended = True
        if error is not None:
            self._connection.abort()
        self._body.on_end(self._sent_bytes, error)
        if error is None:
            self._on_sent()
