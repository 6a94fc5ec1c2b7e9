"""What can be told of one connection, and done to it, beyond what ASGI has words for.

The guard has to know whether a client is still there, and has to be able to break off at once; the stall
clock has to know how much the client takes in. The kernel knows all of it. Where it does not say (a unix
socket, a connection that is closed already) the answer is the harmless one.
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

    from uvicorn.protocols.http.flow_control import FlowControl

_DROP_WHAT_IS_UNSENT = struct.pack("ii", 1, 0)  # linger on, for no time: closing is a reset
_TCP_CLOSE = 7  # tcpi_state, the first byte of `struct tcp_info`, once a reset has arrived
_BYTES_ACKED = slice(120, 128)  # tcpi_bytes_acked, a u64, since Linux 4.1
_GONE = (OSError, ValueError)  # it is closed already; uvloop calls that a bad value


class Connection:
    """One client's connection. `was_cut_short` is set once it is broken off, or lost too early."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow
        self.was_cut_short = False

    @property
    def for_the_guard(self) -> dict[str, Any]:
        """What goes into the scope of each of its requests (`middleware/guard.py`)."""
        return {
            extensions.DRAINED: self.drained,
            extensions.ABORT: self.abort,
            extensions.GONE: self.has_gone,
            extensions.HAS_STALL_CLOCK: True,
        }

    async def drained(self) -> None:
        """Return once what was written before left room for more."""
        if self._flow.write_paused:
            await self._flow.drain()

    def abort(self) -> None:
        """Break the connection off and drop what is buffered, here and in the kernel.

        A plain close would have the kernel go on sending the megabytes that a slow reader left in it.
        """
        self.was_cut_short = True
        with suppress(*_GONE):
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_WHAT_IS_UNSENT)
        self._transport.abort()

    def has_gone(self) -> bool:
        """Whether the client left before its answer did, even if the loop has not come to it yet."""
        with suppress(*_GONE):
            state = self._socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            return self.was_cut_short or state == _TCP_CLOSE
        return self.was_cut_short

    def unsent_bytes(self) -> int:
        """What the client has not taken in yet: buffered here, or in the kernel and not acknowledged."""
        in_kernel = bytes(4)
        with suppress(*_GONE):
            in_kernel = ioctl(self._socket().fileno(), termios.TIOCOUTQ, in_kernel)
        return self._transport.get_write_buffer_size() + int.from_bytes(in_kernel, "little")

    def acknowledged_bytes(self) -> int:
        """What the client's kernel has acknowledged, from some number on: only differences say anything.

        Where the kernel does not count (a unix socket), it is counted by what is left.
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
