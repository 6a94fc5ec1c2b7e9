"""Accepts connections on a listening socket, and bounds how many a worker holds in total and per source.

A connection may need three descriptors (its socket, a duplicate of it for `sendfile`, the file). A process
without a free descriptor can no longer open a file of the cache or reconnect to Redis, so it serves nobody.
Therefore the number of connections is bounded below what the descriptor limit allows, and a connection
counts from `accept` on, its TLS handshake included. A worker at its limit accepts nothing: new connections
wait in the kernel's accept queue, where another worker can take them.

One source may hold at most half of the connections, so that one client cannot lock out all others. What it
opens beyond that is reset at once, unread and unrecorded, and counted. Trusted proxies carry many clients
and have no such limit. A source is an IPv4 address, or the /64 that a single IPv6 host can choose from.

When the process or the machine runs out of descriptors all the same, accepting pauses for a moment:
otherwise the socket would be readable again at once and the event loop would do nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.credential.client import TrustedNetworks
from gateway.server.kernel_queue import bound_the_kernel
from gateway.server.stall_clock import STALL_SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gateway.server.protocol import GatewayHttpProtocol

MAX_CONNECTIONS = 4096  # of a worker, where nothing else is set: some 12 kB each while they are idle
SHARE_OF_A_SOURCE = 2  # one half
FILES_OF_A_CONNECTION = 3
FILES_OF_ITS_OWN = 128  # descriptors of a worker for modules, audit, Redis, the scan, threads that hash
LEAST_CONNECTIONS = 8  # fewer are of no use; `doctor` reports a descriptor limit too low for this

HANDSHAKE_SECONDS = 10.0  # as long as a request's head may take (`protocol.py`)
SHUTDOWN_SECONDS = 5.0  # for the client's part of the TLS shutdown
PAUSE_SECONDS = 0.5  # after `accept` failed for want of a descriptor
COMPLAINT_SECONDS = 60.0  # between two log lines about the same thing
AT_ONCE = 8  # connections accepted in one event loop iteration: another worker may be idle

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: closing sends a reset

logger = logging.getLogger(__name__)


def room(wanted: int, max_files: int) -> int:
    """The number of connections that this limit of open files allows, at most `wanted`."""
    return max(LEAST_CONNECTIONS, min(wanted, (max_files - FILES_OF_ITS_OWN) // FILES_OF_A_CONNECTION))


@dataclass(slots=True)
class ConnectionCounts:
    """Counters of one worker's connections, for the metrics."""

    open: int = 0
    refused: int = 0  # beyond the limit of their source
    stalled: int = 0  # cut, because the client acknowledged nothing for too long


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits for connections: their number, the sources without a limit of their own, the timeouts."""

    connections: int = MAX_CONNECTIONS
    stall_seconds: float = STALL_SECONDS
    handshake_seconds: float = HANDSHAKE_SECONDS
    shutdown_seconds: float = SHUTDOWN_SECONDS
    without_share: TrustedNetworks = msgspec.field(default_factory=TrustedNetworks)


class Acceptor:
    """Accepts on one listening socket in one event loop. Call `close` before the socket is closed."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], GatewayHttpProtocol],
        *,
        bounds: Bounds,
        counts: ConnectionCounts,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._bounds = bounds
        self._counts = counts
        self._tls: dict[str, Any] = (
            {}
            if tls is None
            else {
                "ssl": tls,
                "ssl_handshake_timeout": bounds.handshake_seconds,
                "ssl_shutdown_timeout": bounds.shutdown_seconds,
            }
        )
        self._loop = asyncio.get_running_loop()
        self._of_source: Counter[str] = Counter()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._is_accepting = self._is_closed = False
        self._warned_at: dict[str, float] = {}

    def start(self) -> None:
        """Start to accept."""
        self._listener.setblocking(False)
        bound_the_kernel(self._listener, self._bounds.stall_seconds)
        self._resume()

    def close(self) -> None:
        """Accept nothing more, and cancel TLS handshakes that have not finished."""
        self._is_closed = True
        self._pause()
        for task in self._handshakes:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return once the cancelled handshakes have ended."""
        if self._handshakes:
            await asyncio.wait(self._handshakes)

    def _resume(self) -> None:
        if not self._is_accepting and not self._is_closed:
            self._is_accepting = True
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _pause(self) -> None:
        if self._is_accepting:
            self._is_accepting = False
            self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if self._counts.open >= self._bounds.connections:
                self._warn("a worker has no room for more connections: they wait", self._counts.open)
                self._pause()  # until one is released
                return
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                self._warn("no connection can be accepted", error)
                self._pause()
                self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        source = self._source_of(address)
        if source is not None:
            if self._of_source[source] >= max(1, self._bounds.connections // SHARE_OF_A_SOURCE):
                self._counts.refused += 1
                self._warn("one source has its share of connections: more are reset", source)
                _reset(connection)
                return
            self._of_source[source] += 1
        self._counts.open += 1
        task = self._loop.create_task(self._serve(connection, partial(self._release, source)))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _serve(self, connection: socket.socket, release: Callable[[], None]) -> None:
        """Give the connection to a protocol after the TLS handshake. A failed handshake is not a request."""
        protocol = self._make_protocol()
        is_lost = False

        def on_lost() -> None:
            nonlocal is_lost
            if not is_lost:
                is_lost = True
                release()

        protocol.on_lost = on_lost
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection, **self._tls)
        except (OSError, TimeoutError, asyncio.CancelledError):
            if not protocol.is_made:
                release()
            elif not is_lost:
                # Cancelled right behind `connection_made`, uvloop closes the transport and tells nobody: the
                # protocol would count as open, and a stop would wait for it until its grace limit.
                protocol.connection_lost(None)

    def _release(self, source: str | None) -> None:
        """Count a connection as closed, and accept again if accepting was paused."""
        self._counts.open -= 1
        if source is not None:
            self._of_source[source] -= 1
            if not self._of_source[source]:
                del self._of_source[source]
        self._resume()

    def _source_of(self, address: Any) -> str | None:
        """The source whose limit the connection counts against; None for a peer without a limit."""
        try:
            found = ip_address(address[0])
        except (ValueError, IndexError, TypeError):  # a unix socket: the peer is a local proxy
            return None
        if isinstance(found, IPv6Address):
            if found.ipv4_mapped is None:
                return None if self._bounds.without_share.hold(found) else str(int(found) >> 64)
            found = found.ipv4_mapped
        return None if self._bounds.without_share.hold(found) else str(found)

    def _warn(self, what: str, about: object) -> None:
        """Log at most once in `COMPLAINT_SECONDS`: there may be thousands of cases in a second."""
        now = self._loop.time()
        if now - self._warned_at.get(what, float("-inf")) >= COMPLAINT_SECONDS:
            self._warned_at[what] = now
            logger.warning("%s (%s)", what, about)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
