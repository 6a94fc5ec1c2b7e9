"""The options of the supervisor: which application, which addresses, how many workers, which TLS files."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.model.errors import Misconfigured
from gateway.model.hidden_fields import shown
from gateway.server.acceptor import MAX_CONNECTIONS
from gateway.server.worker import WorkerOrder, verify_tls

if TYPE_CHECKING:
    from pathlib import Path


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """TLS files of the public listener; with `client_ca`, clients must present a certificate signed by it."""

    certificate: Path
    key: Path
    key_password: str | None = None
    client_ca: Path | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("key_password",))

    def verify(self) -> None:
        """Raises `Misconfigured` for a file that is missing, or that other users may write."""
        verify_tls(self.arguments())

    def arguments(self) -> dict[str, Any]:
        """The same as arguments of uvicorn's configuration."""
        arguments: dict[str, Any] = {
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.key),
            "ssl_keyfile_password": self.key_password,
        }
        if self.client_ca is not None:
            arguments |= {"ssl_ca_certs": str(self.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return arguments


class ServePlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve, and where. Port 0 asks for any free port."""

    factory: str  # module:function; called in each worker with `argument`, returns a WorkerApp
    argument: Any  # of JSON's types
    host: str
    port: int
    ops_host: str = "127.0.0.1"
    ops_port: int = 0
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None  # of the admin API, which the workers serve; None: it has no listener
    workers: int = 1
    grace_seconds: int = 10
    keep_alive_seconds: int = 75  # longer than the usual load balancers', so that they close first
    stall_seconds: float = 60.0
    hang_seconds: float = 20.0  # a worker that answers nothing for so long is replaced
    connections: int = MAX_CONNECTIONS  # of each worker
    trusted_proxies: tuple[str, ...] = ()  # networks whose addresses carry many clients each
    tls: TlsFiles | None = None

    def __repr__(self) -> str:
        return shown(self, hidden=("argument",))

    def __post_init__(self) -> None:
        """Raises `Misconfigured` for values that cannot be served."""
        if self.workers < 1:
            raise Misconfigured("workers", f"{self.workers} is too few: expected at least 1")

    def worker_order(self) -> WorkerOrder:
        """The part that is sent to each worker."""
        return WorkerOrder(
            factory=self.factory,
            argument=self.argument,
            grace_seconds=self.grace_seconds,
            keep_alive_seconds=self.keep_alive_seconds,
            stall_seconds=self.stall_seconds,
            connections=self.connections,
            trusted_proxies=self.trusted_proxies,
            tls={} if self.tls is None else self.tls.arguments(),
        )
