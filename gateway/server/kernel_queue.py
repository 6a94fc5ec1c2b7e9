"""Bounds what the kernel buffers for a client that takes nothing, and for how long.

By default the kernel buffers up to 4 MiB for each connection (`tcp_wmem`), which thousands of silent clients
turn into gigabytes that no limit of this process counts. So the kernel is told to hold no more than
`MAX_UNSENT_BYTES` beyond the client's receive window (`TCP_NOTSENT_LOWAT`). That slows no client that reads:
bytes on their way to it are not counted.

A file sent by `sendfile` costs no memory but its pages in the page cache, and larger pieces cost less CPU: on
such a connection the sender raises the bound. It does not lift it. The kernel counts these pages as memory of
TCP all the same, and once all sockets of the machine have used that up (`tcp_mem`, a tenth of the memory), it
resets connections of others: two thousand slow readers of a large file were enough, where each could fill
the 4 MiB of `tcp_wmem`.

The kernel also holds what a closed connection has not sent yet, which the stall clock cannot see any more.
`TCP_USER_TIMEOUT` makes it give up in the end.
"""

from __future__ import annotations

import socket
from contextlib import suppress

MAX_UNSENT_BYTES = 1 << 17
MAX_UNSENT_FILE_BYTES = (1 << 19) + (1 << 15)  # a step of `send_queue.py`, and some: smaller ones cost more
STALLS = 2  # the kernel gives up after this multiple of the stall clock's limit, which is to act first


def bound_the_kernel(listener: socket.socket, stall_seconds: float) -> None:
    """Bound it for every connection that is accepted on this listener: they inherit the options."""
    with suppress(OSError):  # a unix socket: its buffer is bounded by itself
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLS * stall_seconds * 1000))


def raise_the_bound(connection: socket.socket) -> None:
    """Let the kernel buffer more of a file."""
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_FILE_BYTES)
