"""One connection to an inference server, for one exchange at a time: a request out, and its answer in.

Both directions have back-pressure. What the server has not taken of a request is in the kernel alone:
`sent` returns once nothing is left in this process. Of an answer that nobody takes, no more is read than
`MAX_HELD_BYTES` and one read of the socket.

A connection can be used again if the request was sent whole, the answer is complete, nothing came after it,
and neither side closed. While it is idle, the first byte that comes ends it: nobody asked for it.
"""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

from gateway.adapters.answer_reader import AnswerReader, MalformedAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HELD_BYTES = 128 * 1024  # of an answer's body; then no more is read until it is taken
_ANYTHING = select.POLLIN | select.POLLHUP | select.POLLERR


class BrokenConnectionError(Exception):
    """The connection ended, or what came on it was no answer. Its text is fit for the log (I8)."""


class ServerConnection(asyncio.Protocol):
    """One connection. `on_end` is called once, when it cannot be used any more."""

    transport: asyncio.Transport

    def __init__(self, on_end: Callable[[ServerConnection], None]) -> None:
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()  # of the socket, for as long as the transport is open
        self._end: str | None = None  # why nothing more can come
        self._reader: AnswerReader | None = None  # of the exchange that is under way
        self._is_request_whole = False
        self._is_taking = True  # whether everything that was written is with the kernel
        self._is_paused = False  # whether reading is
        self._taken, self._news = _Signal(self._loop), _Signal(self._loop)

    # The transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of a stream
        """Have `resume_writing` called once all is with the kernel."""
        self.transport = transport
        self._poll.register(transport.get_extra_info("socket").fileno(), _ANYTHING)
        transport.set_write_buffer_limits(high=1, low=0)  # with 0, TLS transports never resume

    def data_received(self, data: bytes) -> None:
        """Read on. Bytes that nobody asked for end the connection."""
        reader = self._reader
        if reader is None:
            self._stop("bytes that nobody asked for")
            return
        try:
            reader.feed(data)
        except MalformedAnswerError as error:
            self._stop(str(error))
            return
        if reader.held_bytes > MAX_HELD_BYTES and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> None:
        """The server sends no more; the transport then closes."""
        self._note_end("it closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._note_end("it closed the connection" if exc is None else type(exc).__name__)

    def pause_writing(self) -> None:
        """Something is left that the kernel did not take."""
        self._is_taking = False

    def resume_writing(self) -> None:
        """All is with the kernel."""
        self._is_taking = True
        self._taken.set()

    # An exchange

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer.

        The socket is asked: the event loop learns of a close, and of bytes that nobody asked for, only
        when it looks for news the next time.
        """
        if self._end is not None or self.transport.is_closing():
            return False
        return not self._poll.poll(0)

    def begin(self) -> None:
        """Begin an exchange: what comes from now on is its answer."""
        self._reader, self._is_request_whole = AnswerReader(), False

    def write(self, *pieces: bytes | memoryview) -> bool:
        """Write a part of the request. Returns whether the kernel took all of it.

        The pieces are joined, since `writelines` of some versions of asyncio pauses nobody (CVE-2024-12254).
        """
        self._verify_alive()
        self.transport.write(b"".join(pieces))
        return self._is_taking

    async def sent(self, seconds: float) -> None:
        """Wait until the kernel has all of it. Raises `TimeoutError`, `BrokenConnectionError`."""
        deadline = self._loop.time() + seconds
        while not self._is_taking:
            self._verify_alive()
            await self._taken.wait_until(deadline)

    def note_request_is_whole(self) -> None:
        """Note that all of the request was sent."""
        self._is_request_whole = True

    def wake(self) -> None:
        """Have who waits for news look again."""
        self._news.set()

    def find_answer(self) -> AnswerReader | None:
        """The answer, if its head is there. Raises `BrokenConnectionError` if none can come."""
        reader = self._reader
        if reader is not None and reader.has_head:
            return reader
        self._verify_alive()
        return None

    async def news_until(self, deadline: float | None) -> None:
        """Wait until something comes. Raises `TimeoutError`."""
        await self._news.wait_until(deadline)

    async def piece(self, seconds: float) -> bytes | None:
        """The next piece of the body, or None at its end. Raises `TimeoutError`, `BrokenConnectionError`."""
        reader = self._reader
        if reader is None:
            return None
        if not reader.pieces and not reader.is_complete:
            deadline = self._loop.time() + seconds
            while not reader.pieces and not reader.is_complete:
                self._verify_alive()
                await self._news.wait_until(deadline)
        if not reader.pieces:
            return None
        piece = reader.take()
        if self._is_paused and reader.held_bytes <= MAX_HELD_BYTES:
            self._is_paused = False
            self.transport.resume_reading()
        return piece

    @property
    def has_all(self) -> bool:
        """Whether the answer is complete and all of it was taken."""
        return self._reader is None or (self._reader.is_complete and not self._reader.pieces)

    def finish(self) -> bool:
        """End the exchange. Returns whether the connection can be used again; if not, it is closed."""
        reader, self._reader = self._reader, None
        is_over = reader is not None and reader.may_another_follow and not reader.pieces
        if is_over and self._is_request_whole and self._is_taking and self._end is None:
            return not self.transport.is_closing()
        self.abort()
        return False

    def abort(self) -> None:
        """Close the connection at once; nothing that is buffered is sent."""
        self._stop("it was closed here")

    def _stop(self, why: str) -> None:
        self.transport.abort()
        self._note_end(why)

    def _note_end(self, why: str) -> None:
        if self._end is None:
            self._end = why
            self._taken.set()
            self._news.set()
            self._on_end(self)

    def _verify_alive(self) -> None:
        if self._end is not None:
            raise BrokenConnectionError(self._end)


class _Signal:
    """Wakes the one task that waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_until(self, deadline: float | None) -> None:
        """Wait for the next `set`. Raises `TimeoutError`."""
        waiter = self._waiter = self._loop.create_future()
        timer = None if deadline is None else self._loop.call_at(deadline, _give_up, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
