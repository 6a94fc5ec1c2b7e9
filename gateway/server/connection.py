"""The state of one TCP connection, read from the kernel: client gone, bytes unsent, abort.

ASGI has no way to ask for these. The guard needs to know whether the client is still connected, and must be
able to abort at once; the stall clock needs to know how much the client acknowledged. Where the kernel does
not say (a unix socket, a connection that is closed already) the answer is the one that ends no transfer.
"""

from __future__ import annotations

import socket
import struct
import termios
from contextlib import suppress
from fcntl import ioctl
from typing import TYPE_CHECKING, Any

from gateway.model import extensions

if TYPE_CHECKING:
    import asyncio

    from gateway.server.flow import Flow

_DROP_WHAT_IS_UNSENT = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends a reset
_TCP_CLOSE = 7  # tcpi_state, the first byte of `struct tcp_info`, once a reset has arrived
_BYTES_ACKED = slice(120, 128)  # tcpi_bytes_acked, a u64, since Linux 4.1
_GONE = (OSError, ValueError)  # the socket is closed already; uvloop raises ValueError for that


def address_of(end: object) -> tuple[str, int | None] | None:
    """One end of a connection as ASGI names it; None for the client of a unix socket: it has no address."""
    if isinstance(end, tuple):
        return str(end[0]), int(end[1])
    return (end, None) if isinstance(end, str) and end else None


class Connection:
    """One client's connection. `was_cut_short` is set once it is aborted, or lost before its answer ended."""

    def __init__(self, transport: asyncio.Transport, flow: Flow) -> None:
        self._transport = transport
        self._flow = flow
        self.was_cut_short = False

    @property
    def for_the_guard(self) -> dict[str, Any]:
        """The entries for the scope of each request on this connection (`middleware/client_end.py`)."""
        return {
            extensions.DRAINED: self.drained,
            extensions.ABORT: self.abort,
            extensions.GONE: self.has_gone,
            extensions.HAS_STALL_CLOCK: True,
        }

    async def drained(self) -> None:
        """Return once writing is not paused: the client has taken enough of what was written before."""
        if self._flow.write_paused:
            await self._flow.drain()

    def abort(self) -> None:
        """Reset the connection and drop what is buffered, in this process and in the kernel.

        After a plain close the kernel would go on sending the megabytes that it holds for a slow reader.
        """
        self.was_cut_short = True
        with suppress(*_GONE):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_WHAT_IS_UNSENT)
        self._transport.abort()

    def has_gone(self) -> bool:
        """Whether the client left before its answer ended, even if the event loop has not noticed yet."""
        with suppress(*_GONE):
            state = self._socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            return self.was_cut_short or state == _TCP_CLOSE
        return self.was_cut_short

    def unsent_bytes(self) -> int:
        """Bytes that the client has not acknowledged: buffered in this process or in the kernel."""
        in_kernel = bytes(4)
        with suppress(*_GONE):
            in_kernel = ioctl(self._socket().fileno(), termios.TIOCOUTQ, in_kernel)
        return self._transport.get_write_buffer_size() + int.from_bytes(in_kernel, "little")

    def acknowledged_bytes(self) -> int:
        """Bytes that the client's kernel has acknowledged, from an arbitrary start: only differences count.

        Where the kernel does not count them (a unix socket), the negated number of unsent bytes is used.
        """
        with suppress(*_GONE):
            info = self._socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.stop)
            return int.from_bytes(info[_BYTES_ACKED], "little")
        return -self.unsent_bytes()

    def _socket(self) -> socket.socket:
        found: socket.socket | None = self._transport.get_extra_info("socket")
        if found is None:
            raise OSError("there is no socket")
        return found
