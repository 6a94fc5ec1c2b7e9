"""One stretch of a file on its way into a socket, a step at a time.

The line (`send_queue.py`) and the socket call its steps; the task that sends it sleeps meanwhile, and is
woken at the end, and where something has to be waited for that only a task can wait for: a disk, and
whether the transfer may go on at all.

A file that is not in memory would hold up the event loop for as long as the disk takes. So both ends of
the next part, and places within it, are asked for without waiting (`RWF_NOWAIT`), and when one is not
there a thread reads it first. It reads into nothing: a thread that wrote to the socket itself could
outlive the connection, and write to whichever one has the number then.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from io import UnsupportedOperation
from typing import TYPE_CHECKING, Protocol

from gateway.server.send_queue import STEP_BYTES

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

WARM_BYTES = 1 << 21  # what is looked at, and read ahead by a thread, at once
PROBE_BYTES = 256 << 10  # a look at every so many bytes costs 1 % of sending them, and misses smaller holes

_NO_NOWAIT = frozenset(
    {errno.EOPNOTSUPP, errno.EINVAL}
)  # file systems that cannot tell: they go the slow way
_NO_SENDFILE = _NO_NOWAIT | {errno.ENOSYS}
_PROBE = [bytearray(1)]  # nobody reads what is in it


class Watch(Protocol):
    """Who says whether a transfer may go on."""

    @property
    def is_certain(self) -> bool:
        """Whether it may, for all that is known. Looked at right before each step."""

    async def verify(self) -> None:
        """Wait until it may. Raises when it has to end."""


class Way(Protocol):
    """The connection that a stretch goes out by."""

    def socket(self) -> int:
        """Where to write. Raises `ConnectionResetError` when the connection is lost."""

    def is_clear(self) -> bool:
        """Whether the kernel has all that was written before."""

    def begin(self, step: Callable[[], bool]) -> None:
        """Have it called now or in one of the next turns, and again while it says that there is more."""

    def when_writable(self, step: Callable[[], bool]) -> None:
        """Have it called like that once the kernel takes more."""


def at_ease() -> None:
    """For who does not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What each step is preceded by, and what hears of it once the kernel has it."""

    on_sent: Callable[[int], None]
    verify: Callable[[], None] = at_ease  # called right before each step, and after the last
    watch: Watch | None = None


class FileSpan:
    """So many bytes of an open file."""

    def __init__(
        self, file: int, offset: int, count: int, looks: Looks, way: Way, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._file = file
        self._begin = self._offset = self._warm_end = offset
        self._end = offset + count
        self._looks = looks
        self._way = way
        self._loop = loop
        self._woken: asyncio.Future[None] | None = None  # nobody waits yet
        self._error: BaseException | None = None

    async def send(self) -> None:
        """Send all of it. What a look raises ends it.

        Raises `ConnectionError` or another `OSError` when the client is gone, and `EOFError` when the
        file ends before that: then it is no longer the file whose length was announced. Raises
        `UnsupportedOperation` when this file cannot be sent so, and then nothing of it was sent.
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
        """Take one step; whether to take another in the next turn. Whatever it fails by ends the stretch."""
        if self._woken is None or self._woken.done():  # the task was cancelled, or the connection is lost
            return False
        try:
            return self._goes_on()
        except BaseException as error:  # noqa: BLE001 -- it is for the task, and the line goes on for others
            self.break_off(error)
            return False

    def break_off(self, error: BaseException) -> None:
        """End it: let go of the task that waits for it."""
        if self._woken is not None and not self._woken.done():
            self._error = error
            self._woken.set_result(None)

    def _raise_error(self) -> None:
        """Raise what it was ended by, and forget it: its traceback leads back here."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def _goes_on(self) -> bool:
        looks = self._looks
        if (looks.watch is not None and not looks.watch.is_certain) or not self._is_warm():
            return self._wake()
        if not self._way.is_clear():
            return self._wait_for_room()
        wanted = min(STEP_BYTES, self._warm_end - self._offset)
        looks.verify()  # nothing is awaited between this and the step
        try:
            sent = os.sendfile(self._way.socket(), self._file, self._offset, wanted)
        except BlockingIOError:
            return self._wait_for_room()
        except OSError as error:
            if self._offset == self._begin and error.errno in _NO_SENDFILE:
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
        """Let the task see to it: it is over, or something has to be waited for."""
        if self._woken is not None:
            self._woken.set_result(None)
        return False

    def _wait_for_room(self) -> bool:
        self._warm_end = self._offset  # until then, memory may be needed for something else
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
