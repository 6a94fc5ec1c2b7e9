"""Sends byte ranges of files on one connection's socket by `sendfile`, without copying them through Python.

uvloop has no `sendfile` and does not allow its transport's descriptor to be used, so this works on a
duplicate of it. Two writers must not write to one socket at a time: each range begins once the kernel has
everything that was written to the transport, and nothing is written to the transport until the range ends.
The pages that are sent belong to the page cache, so what a slow client has not taken yet costs the worker
no memory.

After each step other work of the event loop runs, and what all senders together send in one event loop
iteration is bounded (`send_queue.py`), so that a small answer never waits long behind large ones. How a
range is sent, and what is checked before each of its steps, is in `file_span.py`.

Non-goals: how long a client may take nothing (`stall_clock.py`), which bytes belong to which answer
(`exchange.py`), and encrypted connections, whose bytes the kernel cannot produce.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from gateway.server.file_span import NO_SENDFILE, FileSpan, is_in_memory
from gateway.server.kernel_queue import raise_the_bound
from gateway.server.send_queue import STEP_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.server.file_span import RangeCallbacks
    from gateway.server.send_queue import SendQueue


class FileSender:
    """The sending side of one connection. Call `close` when the connection is lost."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, queue: SendQueue
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._queue = queue
        self._socket: socket.socket | None = None
        self._file_span: FileSpan | None = None
        self._is_closed = False

    async def send(self, file: int, offset: int, count: int, looks: RangeCallbacks) -> None:
        """Send `count` bytes of an open file. Raises as `FileSpan.send` does."""
        self._file_span = FileSpan(file, offset, count, looks, self, self._loop)
        try:
            await self._file_span.send()
        finally:
            self._file_span = None
            self._forget_writer()

    def send_first(self, head: bytes, file: int, offset: int, count: int, looks: RangeCallbacks) -> None:
        """Write a head, and the beginning of a range behind it, as far as nothing has to be waited for.

        `looks.on_sent` is told how many bytes of the range were sent: all of them, where it is short and its
        pages are in memory. The head goes out in any case, unless `looks.verify`, which is called right
        before it and after the last byte, raises.
        """
        looks.verify()
        first = min(count, STEP_BYTES)
        is_ready = self.is_clear() and is_in_memory(file, offset, offset + first)
        if not (is_ready and self._queue.may_send(first, self._loop)):
            self._transport.write(head)
            return
        descriptor = self.descriptor()
        try:  # one packet for the head and what follows it
            written = self._own_socket().send(head, socket.MSG_MORE)
        except BlockingIOError:
            written = 0
        if written < len(head):
            self._transport.write(head[written:])
            return
        try:
            sent = os.sendfile(descriptor, file, offset, first)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in NO_SENDFILE:
                return  # `send` says so
            raise
        if sent == 0:
            raise EOFError
        looks.on_sent(sent)
        looks.verify()

    async def give_way(self) -> None:
        """Wait until the other senders had a step: one answer may consist of many short ranges."""
        await self._queue.next(self._loop)

    def close(self) -> None:
        """Close the duplicated socket, and end the range that is being sent, as the connection is lost."""
        self._is_closed = True
        if self._file_span is not None:
            self._file_span.break_off(ConnectionResetError())
        if self._socket is not None:
            self._forget_writer()  # before another socket can get this descriptor number
            self._socket.close()
            self._socket = None

    # `file_span.RangeConnection`: how a range writes to this connection

    def descriptor(self) -> int:
        """The descriptor to write to. Raises `ConnectionResetError` when the connection is lost."""
        return self._own_socket().fileno()

    def _own_socket(self) -> socket.socket:
        if self._is_closed or self._transport.is_closing():
            raise ConnectionResetError
        if self._socket is None:
            connection = self._transport.get_extra_info("socket")
            raise_the_bound(connection)
            kind = connection.family, connection.type, connection.proto
            self._socket = socket.socket(*kind, fileno=os.dup(connection.fileno()))
        return self._socket

    def is_clear(self) -> bool:
        """Whether the kernel has all that was written to the transport before."""
        return not self._transport.get_write_buffer_size()

    def begin(self, step: Callable[[], bool]) -> None:
        """Call `step` now or in one of the next event loop iterations, and again while it returns True."""
        self._queue.begin(step, self._loop)

    def when_writable(self, step: Callable[[], bool]) -> None:
        """Call `step` in the same way once the socket is writable."""

        def resume() -> None:
            self._forget_writer()
            self._queue.line_up(step, self._loop)

        self._loop.add_writer(self.descriptor(), resume)

    def _forget_writer(self) -> None:
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
