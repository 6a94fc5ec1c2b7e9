"""Sends one byte range of an open file to a socket, in bounded steps.

The send queue (`send_queue.py`) and the socket call the steps; the task that sends the range waits meanwhile.
It is woken at the end, and where something has to be awaited: a disk read, or the check whether the transfer
may go on at all.

Sending pages that are not in the page cache would block the event loop for as long as the disk takes. So both
ends of the next 2 MiB, and places within them, are probed without waiting (`RWF_NOWAIT`). When one is not in
memory, a thread reads the range first. The thread only reads: a thread that wrote to the socket could outlive
the connection, and write to another connection that was given the same descriptor number.
"""

from __future__ import annotations

import errno
import os
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.server.send_queue import STEP_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from gateway.model.at_once import Watch

WARM_BYTES = 1 << 21  # what is probed, and read ahead by a thread, at once
PROBE_BYTES = 256 << 10  # one probe for so many bytes costs 1 % of sending them, and misses smaller holes

_NO_NOWAIT = frozenset(
    {errno.EOPNOTSUPP, errno.EINVAL}
)  # file systems without RWF_NOWAIT: a thread reads there before each step
NO_SENDFILE = _NO_NOWAIT | {errno.ENOSYS}
_PROBE = [bytearray(1)]  # the buffer of a probe; its content is not used


class RangeConnection(Protocol):
    """The connection that a range is sent on (`FileSender`)."""

    def descriptor(self) -> int:
        """The descriptor to write to. Raises `ConnectionResetError` when the connection is lost."""

    def is_clear(self) -> bool:
        """Whether the kernel has all that was written to the transport before."""

    def begin(self, step: Callable[[], bool]) -> None:
        """Call `step` now or in one of the next event loop iterations, and again while it returns True."""

    def when_writable(self, step: Callable[[], bool]) -> None:
        """Call `step` in the same way once the socket is writable."""


def do_nothing() -> None:
    """The default of `RangeCallbacks.verify`: check nothing."""


class RangeCallbacks(msgspec.Struct, frozen=True, kw_only=True):
    """The callbacks of a range: checks before each step, and `on_sent` after the kernel took its bytes."""

    on_sent: Callable[[int], None]
    verify: Callable[[], None] = do_nothing  # called right before each step, and after the last
    watch: Watch | None = None


class FileSpan:
    """One byte range of an open file, being sent."""

    def __init__(
        self,
        file: int,
        offset: int,
        count: int,
        looks: RangeCallbacks,
        way: RangeConnection,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._file = file
        self._begin = self._offset = self._warm_end = offset
        self._end = offset + count
        self._looks = looks
        self._way = way
        self._loop = loop
        self._woken: asyncio.Future[None] | None = None  # set while the task waits
        self._error: BaseException | None = None

    async def send(self) -> None:
        """Send all of the range. What a check raises ends it.

        Raises `ConnectionError` or another `OSError` when the client is gone, and `EOFError` when the
        file ends before the range does: then it no longer has the length that was announced. Raises
        `UnsupportedOperation` when `sendfile` cannot send this file; then no byte of it was sent.
        """
        watch = self._looks.watch
        while self._offset < self._end:
            if watch is not None:
                await watch.verify()
            if not self._is_warm():
                await self._loop.run_in_executor(
                    None, os.pread, self._file, self._next_warm_end - self._offset, self._offset
                )
                self._warm_end = self._next_warm_end
            self._woken = self._loop.create_future()
            self._way.begin(self.step)
            try:
                await self._woken
            finally:
                self._woken = None
            self._raise_error()
        self._looks.verify()

    def step(self) -> bool:
        """Take one step; return whether to take another one later. An exception ends the range."""
        if self._woken is None or self._woken.done():  # the task was cancelled, or the connection is lost
            return False
        try:
            return self._send_step()
        except BaseException as error:  # noqa: BLE001 -- raised in the task; the queue goes on with others
            self.break_off(error)
            return False

    def break_off(self, error: BaseException) -> None:
        """End the range and wake the task that waits for it; `send` raises the error there."""
        if self._woken is not None and not self._woken.done():
            self._error = error
            self._woken.set_result(None)

    def _raise_error(self) -> None:
        """Raise the error that ended the range, and drop it: its traceback refers to this object."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def _send_step(self) -> bool:
        looks = self._looks
        if (looks.watch is not None and not looks.watch.is_certain) or not self._is_warm():
            return self._wake()
        if not self._way.is_clear():
            return self._wait_for_room()
        wanted = min(STEP_BYTES, self._warm_end - self._offset)
        looks.verify()  # nothing is awaited between this check and the system call
        try:
            sent = os.sendfile(self._way.descriptor(), self._file, self._offset, wanted)
        except BlockingIOError:
            return self._wait_for_room()
        except OSError as error:
            if self._offset == self._begin and error.errno in NO_SENDFILE:
                raise UnsupportedOperation from error
            raise
        if sent == 0:
            raise EOFError
        self._offset += sent
        looks.on_sent(sent)
        if self._offset == self._end:
            return self._wake()
        if sent < wanted:
            return self._wait_for_room()
        return True

    def _wake(self) -> bool:
        """Wake the task: the range is done, or something has to be awaited."""
        if self._woken is not None:
            self._woken.set_result(None)
        return False

    def _wait_for_room(self) -> bool:
        self._warm_end = self._offset  # probe again: the pages may be evicted until the socket is writable
        self._way.when_writable(self.step)
        return False

    @property
    def _next_warm_end(self) -> int:
        return min(self._offset + WARM_BYTES, self._end)

    def _is_warm(self) -> bool:
        """Whether the next step can be sent without waiting for a disk."""
        if self._offset >= self._warm_end:
            if not is_in_memory(self._file, self._offset, self._next_warm_end):
                return False
            self._warm_end = self._next_warm_end
        return True


def is_in_memory(file: int, offset: int, end: int) -> bool:
    """Whether a range can probably be read without waiting; false when the file system cannot tell."""
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
