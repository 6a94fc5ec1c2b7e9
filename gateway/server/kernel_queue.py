"""What the kernel keeps for a client that takes in nothing, and for how long.

As shipped it takes up to 4 MiB for each connection (`tcp_wmem`), which thousands of silent clients turn
into gigabytes that no limit of this process counts. So the kernel is told to take no more than
`MAX_UNSENT_BYTES` beyond what the client has room for. That bounds no client that reads: what is on its
way to it is not counted.

A file that goes out by `sendfile` costs no memory there but pages that it has anyway, and larger pieces
cost less: on such a connection the bound is lifted, by whoever sends it. No stranger gets a file.

The kernel also keeps what a connection that was closed has not sent yet, which the stall clock does not
see any more. It is told to give up in the end.
"""

from __future__ import annotations

import socket
from contextlib import suppress

MAX_UNSENT_BYTES = 1 << 17
STALLS = 2  # so many times as long as the stall clock allows, which is to be the first
_AS_THE_SYSTEM_HAS_IT = 0


def bound_the_kernel(listener: socket.socket, stall_seconds: float) -> None:
    """Bound it for every connection that is accepted here: they inherit it."""
    with suppress(OSError):  # a unix socket: what it keeps is bounded by itself
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLS * stall_seconds * 1000))


def lift_the_bound(connection: socket.socket) -> None:
    """Let the kernel take as much of a file as it likes."""
    with suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _AS_THE_SYSTEM_HAS_IT)
