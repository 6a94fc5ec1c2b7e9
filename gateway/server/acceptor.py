"""The acceptor: takes connections in, no more of them than there is room for.

Each connection may cost three open files (its socket, a duplicate of it for `sendfile`, the file), and a
process that has none left answers nobody: it cannot open a file of the cache or reach Redis again. So
there is a bound on connections, below what the limit of open files allows, and connections are counted
from the moment they are accepted, their TLS handshake included. While a worker is full it accepts
nothing: who waits is in the kernel's queue, where another worker may take it.

No source may have more than half of the room, so that one client cannot shut everybody else out; what it
opens beyond that is reset at once, unread and unrecorded, and counted. Trusted proxies are many clients
and have no such share. A source is an address, or the /64 that a single IPv6 host can roam in.

When the process, or the machine, runs out of files all the same, accepting pauses for a moment: the
socket would be readable again at once, and the loop would do nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

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
FILES_OF_ITS_OWN = 128  # of a worker: modules, audit, Redis, the scan, threads that hash
LEAST_CONNECTIONS = 8  # with fewer nothing works; a limit of files below that is for `doctor` to complain of

HANDSHAKE_SECONDS = 10.0  # as long as a request's head may take (`protocol.py`)
SHUTDOWN_SECONDS = 5.0  # for the client's part in ending TLS
PAUSE_SECONDS = 0.5  # after the system had no file for a connection
COMPLAINT_SECONDS = 60.0  # between two lines in the log about the same thing
AT_ONCE = 8  # connections that one turn of the loop takes: another worker may be idle

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET = struct.pack("ii", 1, 0)  # linger on, for no time

logger = logging.getLogger(__name__)


def room(wanted: int, max_files: int) -> int:
    """How many connections there is room for, with so many open files allowed."""
    return max(LEAST_CONNECTIONS, min(wanted, (max_files - FILES_OF_ITS_OWN) // FILES_OF_A_CONNECTION))


@dataclass(slots=True)
class ConnectionCounts:
    """For the metrics."""

    open: int = 0
    refused: int = 0  # beyond the share of their source
    stalled: int = 0  # cut, because their client took in nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many connections are kept, whose are not counted by source, and for how long each may wait."""

    connections: int = MAX_CONNECTIONS
    stall_seconds: float = STALL_SECONDS
    handshake_seconds: float = HANDSHAKE_SECONDS
    shutdown_seconds: float = SHUTDOWN_SECONDS
    without_share: TrustedNetworks = field(default_factory=TrustedNetworks)


class Acceptor:
    """One listening socket of one event loop. `start` it in that loop; `close` it before the socket."""

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
        self._beginning: set[asyncio.Task[None]] = set()
        self._is_accepting = self._is_closed = False
        self._complained_at: dict[str, float] = {}

    def start(self) -> None:
        """Accept from here on."""
        self._listener.setblocking(False)
        bound_the_kernel(self._listener, self._bounds.stall_seconds)
        self._resume()

    def close(self) -> None:
        """Accept nothing more, and give up what has not begun: the rest of a handshake."""
        self._is_closed = True
        self._pause()
        for task in self._beginning:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return once what had not begun is gone."""
        if self._beginning:
            await asyncio.wait(self._beginning)

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
                self._complain("a worker has no room for more connections: they wait", self._counts.open)
                self._pause()  # until one is released
                return
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                self._complain("no connection can be accepted", error)
                self._pause()
                self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: Any) -> None:
        source = self._source_of(address)
        if source is not None:
            if self._of_source[source] >= max(1, self._bounds.connections // SHARE_OF_A_SOURCE):
                self._counts.refused += 1
                self._complain("one source has its share of connections: more are reset", source)
                _reset(connection)
                return
            self._of_source[source] += 1
        self._counts.open += 1
        task = self._loop.create_task(self._serve(connection, partial(self._release, source)))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _serve(self, connection: socket.socket, release: Callable[[], None]) -> None:
        """Hand it to a protocol, after the handshake. What fails before that is nobody's request."""
        protocol = self._make_protocol()
        protocol.on_lost = release
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection, **self._tls)
        except (OSError, TimeoutError, asyncio.CancelledError):
            if not protocol.is_made:  # else it says itself when it is lost
                release()

    def _release(self, source: str | None) -> None:
        """A connection is over."""
        self._counts.open -= 1
        if source is not None:
            self._of_source[source] -= 1
            if not self._of_source[source]:
                del self._of_source[source]
        self._resume()

    def _source_of(self, address: Any) -> str | None:
        """Whose share it is part of; None when it is nobody's."""
        try:
            found = ip_address(address[0])
        except (ValueError, IndexError, TypeError):  # a unix socket: whoever stands before us
            return None
        if isinstance(found, IPv6Address):
            if found.ipv4_mapped is None:
                return None if self._bounds.without_share.hold(found) else str(int(found) >> 64)
            found = found.ipv4_mapped
        return None if self._bounds.without_share.hold(found) else str(found)

    def _complain(self, what: str, about: object) -> None:
        """Once in a while: there may be thousands of them in a second."""
        now = self._loop.time()
        if now - self._complained_at.get(what, float("-inf")) >= COMPLAINT_SECONDS:
            self._complained_at[what] = now
            logger.warning("%s (%s)", what, about)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
