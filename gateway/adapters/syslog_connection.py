"""A connection that carries syslog messages over TLS, each with its length in front (RFC 5425).

Syslog has no acknowledgement. What can be known is what the kernel of the other side has: `send` returns
when all of it was acknowledged there (`SIOCOUTQ` is 0), so that a broken network loses nothing. What the
receiver's program has not taken from its kernel when it dies is lost; a connection that was ended by it is
noticed before the next message.

All calls block, each within a deadline, in the thread of their consumer.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONNECT_SECONDS = 5.0
SEND_SECONDS = 20.0
_PIECE_BYTES = 64 << 10
_LOOK_SECONDS = 0.001
_INT = struct.Struct("i")


class SyslogConnection:
    """A connection to one receiver, made when it is needed."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        ca_file: Path | None = None,
        certificate_file: Path | None = None,
        key_file: Path | None = None,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        self._host, self._port = host, port
        self._seconds = send_seconds
        self._context = _trust(ca_file, certificate_file, key_file)
        self._socket: ssl.SSLSocket | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known: the other side may have ended it."""
        if self._socket is not None and _is_ended(self._socket):
            self.close()
        return self._socket is not None

    def send(self, messages: Iterable[bytes]) -> None:
        """Send messages, each framed. Raises `Unavailable`; then nobody knows what arrived."""
        deadline = time.monotonic() + self._seconds
        framed = b"".join(b"%d %b" % (len(message), message) for message in messages)
        try:
            if not self.is_open:
                self._connect()
            connection = self._socket
            if connection is None:
                raise ConnectionError
            for start in range(0, len(framed), _PIECE_BYTES):
                connection.settimeout(max(deadline - time.monotonic(), 0.01))
                connection.sendall(framed[start : start + _PIECE_BYTES])
            while _unacknowledged(connection):
                if time.monotonic() >= deadline:
                    raise TimeoutError
                time.sleep(_LOOK_SECONDS)
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise Unavailable("syslog", f"{self._host}:{self._port} {_why(error)}") from error

    def close(self) -> None:
        """Close the connection, and say so to the other side."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(OSError, ValueError):
                connection.settimeout(0.2)
                connection.unwrap()
            connection.close()

    def _connect(self) -> None:
        raw = socket.create_connection((self._host, self._port), timeout=CONNECT_SECONDS)
        try:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = self._context.wrap_socket(raw, server_hostname=self._host)
        except BaseException:
            raw.close()
            raise


def _trust(ca_file: Path | None, certificate_file: Path | None, key_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate_file is not None:
            context.load_cert_chain(certificate_file, key_file)
    except (OSError, ssl.SSLError) as error:
        found = f"{ca_file or certificate_file} holds no certificate or key in PEM that can be read"
        raise Misconfigured("--ca-file, --certificate-file", found) from error
    return context


def _is_ended(connection: ssl.SSLSocket) -> bool:
    """Whether the other side has ended it. A receiver sends nothing else."""
    try:
        connection.settimeout(0.0)
        return not connection.recv(1024)
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    except (OSError, ValueError):
        return True


def _unacknowledged(connection: ssl.SSLSocket) -> int:
    """How many bytes the kernel of the other side has not acknowledged."""
    raw = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * _INT.size)
    return int(_INT.unpack(raw)[0])


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "does not take messages in time"
    return f"is not reached or broke off ({type(error).__name__})"
