"""The key of an administrator goes to nobody whose certificate is not verified."""

from __future__ import annotations

import socket
import ssl
from threading import Thread

import pytest

from gateway.adapters.admin_client import AdminClient
from gateway.model.errors import Unavailable
from tests.certificates import write_certificate


class Impostor:
    """A server with a certificate that nobody vouches for; `read` is what it is told."""

    def __init__(self, folder):
        write_certificate(folder / "tls.pem", folder / "tls.key")
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.read = None
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        plain, _ = self._socket.accept()
        try:
            with self._context.wrap_socket(plain, server_side=True) as encrypted:
                self.read = encrypted.recv(4096)
        except OSError:
            self.read = b""
        finally:
            plain.close()

    def close(self):
        self._thread.join()
        self._socket.close()


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "Https"])
def test_a_gateway_is_verified_however_its_scheme_is_written(tmp_path, scheme):
    impostor = Impostor(tmp_path)
    try:
        with pytest.raises(Unavailable):
            AdminClient(f"{scheme}://127.0.0.1:{impostor.port}", "the-key").get("/tenants")
    finally:
        impostor.close()
    assert impostor.read == b""
