"""Binds listening sockets, and runs uvicorn's server on them with our own acceptor and signal handling."""

from __future__ import annotations

import errno
import socket
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, cast

import msgspec
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from gateway.model.errors import Misconfigured
from gateway.server.acceptor import Acceptor, Bounds, ConnectionCounts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from gateway.server.protocol import GatewayHttpProtocol

BACKLOG = 2048  # connections that the kernel keeps while no worker is free to take them
MAX_PORT = 65_535

_ADVICE = {
    errno.EADDRINUSE: "is in use: stop what listens there (`ss -ltnp` shows it) or choose another port",
    errno.EACCES: "is not for this user: choose a port from 1024 on, or give CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "is no address of this machine: use 127.0.0.1, 0.0.0.0, ::1 or ::",
}


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that listens already, so that two instances cannot both hold the port.

    Raises `Misconfigured` with advice for the operator.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not 0 <= port <= MAX_PORT:
        raise Misconfigured(where, f"has no such port: expected 0 to {MAX_PORT}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, f"cannot be listened on: {error}")
        raise Misconfigured(where, advice) from error


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A further listener of a server: its own application and bounds, the same life."""

    listener: socket.socket
    config: uvicorn.Config
    bounds: Bounds
    counts: ConnectionCounts  # of its own connections: they are bounded by themselves, and reported with all


class QuietServer(uvicorn.Server):
    """uvicorn's server without its signal handlers, and with `Acceptor` to accept connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_serving: Callable[[], None] | None = None,
        *,
        bounds: Bounds | None = None,
        counts: ConnectionCounts | None = None,
        beside: Sequence[Beside] = (),
        on_stopping: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._on_stopping = on_stopping
        self._on_serving = on_serving
        self._bounds = bounds or Bounds()
        self._counts = counts or ConnectionCounts()
        self._beside = tuple(beside)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]  # a generator there
        """Install no signal handlers."""
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections, then call `on_serving`."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(STARTUP_FAILURE)  # as uvicorn does
        acceptors = [
            self._acceptor(listener, self.config, self._bounds, self._counts) for listener in sockets or ()
        ]
        acceptors += [
            self._acceptor(one.listener, one.config, one.bounds, one.counts) for one in self._beside
        ]
        self.servers = cast("list[asyncio.base_events.Server]", acceptors)  # uvicorn's shutdown closes them
        for acceptor in acceptors:
            acceptor.start()
        self.started = True
        if self._on_serving is not None:
            self._on_serving()

    def _acceptor(
        self, listener: socket.socket, config: uvicorn.Config, bounds: Bounds, counts: ConnectionCounts
    ) -> Acceptor:
        def make_protocol() -> GatewayHttpProtocol:
            made_by = cast("type[GatewayHttpProtocol]", config.http_protocol_class)
            return made_by(config, self.server_state, self.lifespan.state)

        return Acceptor(listener, make_protocol, bounds=bounds, counts=counts, tls=config.ssl)

    def stop(self) -> None:
        """Accept nothing more, finish the answers in progress within the grace limit, and end."""
        on_stopping, self._on_stopping = self._on_stopping, None
        if on_stopping is not None:
            on_stopping()
        self.should_exit = True
