"""Sends stretches of files over one connection's socket by `sendfile`: no byte passes through us.

uvloop has no `sendfile` of its own and lets nobody touch the descriptor of a transport, so this works
on a duplicate of it. Two may not write to one socket at a time: each stretch begins once everything
that was written to the transport is with the kernel, and nothing is written to the transport until
it ends. The pages that went out are the file's, so what a slow client has not taken yet costs the
worker nothing.

Others get their turn after each step, and what all senders together send in one turn of the event
loop is bounded (`turns.py`), so that a small answer never waits long for large ones. A file that is
not in memory would hold up the event loop for as long as the disk takes. So both ends of the next
stretch, and places within it, are asked for without waiting (`RWF_NOWAIT`), and when one is not there
a thread reads it first. It reads into nothing: a thread that wrote to the socket itself could outlive
the connection, and write to whichever one has the number then.

Non-goals: how long a client may take nothing (the kernel counts that, `listener.py`), what belongs
to which answer (`response.py`), and encrypted connections, whose bytes the kernel cannot make.
"""

from __future__ import annotations

import errno
import os
from io import UnsupportedOperation
from typing import TYPE_CHECKING

from gateway.server.turns import STEP_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from gateway.server.turns import Turns

WARM_BYTES = 1 << 21  # what is looked at, and read ahead by a thread, at once
PROBE_BYTES = 256 << 10  # a look at every so many bytes costs 1 % of sending them, and misses smaller holes

_NO_NOWAIT = frozenset(
    {errno.EOPNOTSUPP, errno.EINVAL}
)  # file systems that cannot tell: they go the slow way
_NO_SENDFILE = _NO_NOWAIT | {errno.ENOSYS}
_PROBE = [bytearray(1)]  # nobody reads what is in it


class FileSender:
    """The sending end of one connection. `close` when it is lost."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        self._transport = transport
        self._loop = loop
        self._turns = turns
        self._socket: int | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._is_closed = False

    async def send(
        self,
        file: int,
        offset: int,
        count: int,
        on_sent: Callable[[int], None],
        *,
        before_step: Callable[[], Awaitable[None]] | None = None,
        verify: Callable[[], None] | None = None,
    ) -> None:
        """Send so many bytes of an open file. `on_sent` hears of each step once the kernel has it.

        `before_step` may hold each of them back; `verify` is called right before each and after the
        last. What either raises ends the stretch.
        Raises `ConnectionError` or another `OSError` when the client is gone, and `EOFError` when the
        file ends before that: then it is no longer the file whose length was announced. Raises
        `UnsupportedOperation` when this file cannot be sent so, and then nothing of it was sent.
        """
        while self._transport.get_write_buffer_size():
            await self._writable()
        await self._send(file, offset, offset + count, on_sent, before_step, verify or _nothing)

    async def _send(
        self,
        file: int,
        offset: int,
        end: int,
        on_sent: Callable[[int], None],
        before_step: Callable[[], Awaitable[None]] | None,
        verify: Callable[[], None],
    ) -> None:
        begin = warm_end = offset
        while offset < end:
            if before_step is not None:
                await before_step()
            if offset >= warm_end:
                warm_end = await self._warmed(file, offset, end)
            wanted = min(STEP_BYTES, warm_end - offset)
            verify()  # nothing is awaited between this and the step
            try:
                sent = os.sendfile(self._open_socket(), file, offset, wanted)
            except BlockingIOError:
                await self._writable()
                continue
            except OSError as error:
                if offset == begin and error.errno in _NO_SENDFILE:
                    raise UnsupportedOperation from error
                raise
            if sent == 0:
                raise EOFError
            offset += sent
            on_sent(sent)
            await (self._turns.next(self._loop) if sent == wanted else self._writable())
        verify()

    def close(self) -> None:
        """The connection is lost: let go of the socket, and of whoever waits for it."""
        self._is_closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError())
        if self._socket is not None:
            self._loop.remove_writer(self._socket)  # before its number can be somebody else's
            os.close(self._socket)
            self._socket = None

    def _open_socket(self) -> int:
        if self._is_closed or self._transport.is_closing():
            raise ConnectionResetError
        if self._socket is None:
            self._socket = os.dup(self._transport.get_extra_info("socket").fileno())
        return self._socket

    async def _writable(self) -> None:
        """Return once the kernel takes more. Raises `ConnectionResetError` when the connection is lost."""
        descriptor = self._open_socket()
        self._waiting = self._loop.create_future()
        self._loop.add_writer(descriptor, _wake, self._waiting)
        try:
            await self._waiting
        finally:
            self._waiting = None
            if self._socket is not None:
                self._loop.remove_writer(self._socket)

    async def _warmed(self, file: int, offset: int, end: int) -> int:
        """Up to where the file can be sent now without waiting for a disk."""
        warm_end = min(offset + WARM_BYTES, end)
        if not is_in_memory(file, offset, warm_end):
            await self._loop.run_in_executor(None, os.pread, file, warm_end - offset, offset)
        return warm_end


def is_in_memory(file: int, offset: int, end: int) -> bool:
    """Whether a stretch can probably be read without waiting; false when the file system cannot tell."""
    try:
        for place in range(offset, end, PROBE_BYTES):
            os.preadv(file, _PROBE, place, os.RWF_NOWAIT)
        os.preadv(file, _PROBE, end - 1, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_NOWAIT:
            return False
        raise
    return True


def _nothing() -> None:
    return


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
