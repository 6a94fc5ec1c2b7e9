"""A real nginx in front, with `deploy/nginx/accel.conf` as it ships but for its addresses and folders."""

from __future__ import annotations

from hashlib import md5, sha256

import pytest

CONTENT = bytes(range(256)) * 2000
ETAG = f'"{sha256(CONTENT).hexdigest()}"'
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
UNHASHED = "/v1/models/acme/cars/1/-/pkgA1/notes.txt"


@pytest.fixture
def site(accel_site):
    return accel_site


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nginx_sends_the_file_with_the_gateways_headers(method, site):
    answer = site.ask(method=method)
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
    answer = site.ask()
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
    answer = site.ask(*headers)
    assert answer.status == status
    if status == 200:
        assert answer.body == CONTENT
        assert answer.header("etag") == ETAG


def test_a_range_is_that_part(site):
    assert site.ask(("Range", "bytes=1000-1999")).body == CONTENT[1000:2000]


def test_a_package_file_comes_from_the_gateway(site):
    assert site.ask(path=UNHASHED).body == b"unhashed\n"


def test_the_location_is_nobodys_to_ask_for(site):
    name = md5(CONTENT, usedforsecurity=False).hexdigest()
    for path in (f"/_blobs/{name}", f"/_blobs/../_blobs/{name}", f"//_blobs/{name}", f"/%5fblobs/{name}"):
        answer = site.ask(path=path)
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
