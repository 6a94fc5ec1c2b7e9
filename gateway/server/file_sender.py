"""Sends stretches of files over one connection's socket by `sendfile`: no byte passes through us.

uvloop has no `sendfile` of its own and lets nobody touch the descriptor of a transport, so this works
on a duplicate of it. Two may not write to one socket at a time: each stretch begins once everything
that was written to the transport is with the kernel, and nothing is written to the transport until
it ends. The pages that went out are the file's, so what a slow client has not taken yet costs the
worker nothing.

Others get their turn after each step, and what all senders together send in one turn of the event
loop is bounded (`send_queue.py`), so that a small answer never waits long for large ones. How a stretch goes
out, and what each of its steps is preceded by, is in `file_span.py`.

Non-goals: how long a client may take nothing (`transfers.py`), what belongs to which answer
(`response.py`), and encrypted connections, whose bytes the kernel cannot make.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gateway.server.file_span import FileSpan
from gateway.server.kernel_queue import lift_the_bound

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.server.file_span import Looks
    from gateway.server.send_queue import SendQueue


class FileSender:
    """The sending end of one connection. `close` when it is lost."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, turns: SendQueue
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._turns = turns
        self._socket: int | None = None
        self._file_span: FileSpan | None = None
        self._is_closed = False

    async def send(self, file: int, offset: int, count: int, looks: Looks) -> None:
        """Send so many bytes of an open file. Raises as `FileSpan.send` does."""
        self._file_span = FileSpan(file, offset, count, looks, self, self._loop)
        try:
            await self._file_span.send()
        finally:
            self._file_span = None
            self._forget_writer()

    async def give_way(self) -> None:
        """Let others have their turn: between two stretches of one answer, which may be short and many."""
        await self._turns.next(self._loop)

    def close(self) -> None:
        """The connection is lost: let go of the socket, and of whoever waits for it."""
        self._is_closed = True
        if self._file_span is not None:
            self._file_span.break_off(ConnectionResetError())
        if self._socket is not None:
            self._forget_writer()  # before its number can be somebody else's
            os.close(self._socket)
            self._socket = None

    # The way that a stretch goes out by

    def socket(self) -> int:
        """Where to write. Raises `ConnectionResetError` when the connection is lost."""
        if self._is_closed or self._transport.is_closing():
            raise ConnectionResetError
        if self._socket is None:
            connection = self._transport.get_extra_info("socket")
            lift_the_bound(connection)
            self._socket = os.dup(connection.fileno())
        return self._socket

    def is_clear(self) -> bool:
        """Whether the kernel has all that was written before."""
        return not self._transport.get_write_buffer_size()

    def begin(self, step: Callable[[], bool]) -> None:
        """Have it called now or in one of the next turns, and again while it says that there is more."""
        self._turns.begin(step, self._loop)

    def when_writable(self, step: Callable[[], bool]) -> None:
        """Have it called like that once the kernel takes more."""

        def resume() -> None:
            self._forget_writer()
            self._turns.line_up(step, self._loop)

        self._loop.add_writer(self.socket(), resume)

    def _forget_writer(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket)
