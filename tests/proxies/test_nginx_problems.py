"""What the shipped nginx files make nginx answer by itself: RFC 9457 problems, and never a page of HTML."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from pathlib import Path

import pytest

from gateway.faces.hooks import MAX_BODY_BYTES

SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
FILES = ["accel.conf", "cachegate.conf"]
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
MARK = b"echo-of-the-request"
END = b"\r\nHost: gateway\r\nConnection: close\r\n\r\n"
CHUNKED = b"Host: gateway\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
LONG = MARK + b"a" * 40_000  # longer than one of nginx's buffers

REFUSED = {
    "garbage": (b"\x16\x03" + MARK + b"\r\n\r\n", 400),
    "no-path": (b"GET " + MARK + END, 400),
    "no-host": (b"GET /" + MARK + b" HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
    "two-hosts": (b"GET /" + MARK + b" HTTP/1.1\r\nHost: a" + END, 400),
    "bad-length": (b"POST / HTTP/1.1\r\nContent-Length: " + MARK + END, 400),
    "location-of-problems": (b"GET /_problem?" + MARK + b" HTTP/1.1" + END, 404),
    "check": (b"GET /check/nginx?" + MARK + b" HTTP/1.1\r\nX-Original-URI: /v1/models" + END, 404),
    "check-of-envoy": (b"GET //check/envoy/v1/models?" + MARK + b" HTTP/1.1" + END, 404),
    "method": (b"TRACE /" + MARK + b" HTTP/1.1" + END, 405),
    "body": (b"POST /" + MARK + b" HTTP/1.1\r\nContent-Length: 5000" + END, 413),
    "chunked-body": (b"POST / HTTP/1.1\r\n" + CHUNKED + b"1388\r\n" + b"a" * 5000 + b"\r\n0\r\n\r\n", 413),
    "body-of-a-webhook": (
        b"POST /hooks/v1/authority HTTP/1.1\r\nContent-Length: %d" % (MAX_BODY_BYTES + 1) + END,
        413,
    ),
    "target": (b"GET /" + LONG + b" HTTP/1.1" + END, 414),
    "header": (b"GET / HTTP/1.1\r\nX-Padding: " + LONG + END, 431),
    "coding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: " + MARK + END, 501),
    "version": (b"GET / HTTP/7.0" + END, 505),
}


@pytest.fixture(params=["accel_site", "tls_site"])
def site(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["accel_without_gateway", "tls_without_gateway"])
def without_gateway(request):
    return request.getfixturevalue(request.param)


def check_problem(answer, status, *, cache_control="no-store"):
    """A problem of nginx's own: whole, with the status in it, not to be kept, and nothing of the request."""
    headers = dict(answer.headers)
    assert answer.status == status
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == cache_control
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"] == "nginx"
    assert len(headers) == len(answer.headers), "a header that came twice"
    assert not answer.is_cut
    body = answer.json()
    assert list(body) == ["type", "title", "status", "detail"]
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert b"<" not in answer.body
    assert MARK not in f"{answer.headers}".encode() + answer.body


@pytest.mark.parametrize("name", REFUSED)
def test_what_nginx_refuses_is_a_problem(name, site):
    raw, status = REFUSED[name]
    answer = site.wire.send(raw)
    check_problem(answer, status)
    assert answer.header("retry-after") is None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_gateway_that_does_not_run_is_a_problem(method, without_gateway):
    answer = without_gateway.request(method, "/v1/models?" + MARK.decode())
    check_problem(answer, 502)
    assert answer.header("retry-after") == "1"


def test_a_head_request_gets_the_headers_of_the_problem(without_gateway):
    answer = without_gateway.head("/v1/models")
    assert (answer.status, answer.body) == (502, b"")
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("content-length") == without_gateway.get("/v1/models").header("content-length")


def test_plain_http_to_the_port_of_tls_is_a_problem(tls_site, accel_site):
    plain = type(accel_site.wire)("127.0.0.1", tls_site.wire.port)
    check_problem(plain.send(b"GET /" + MARK + b" HTTP/1.1" + END), 400)


def test_a_location_of_nginx_alone_is_a_problem(accel_site):
    check_problem(accel_site.wire.get("/_blobs/" + MARK.decode()), 404)


@pytest.mark.parametrize("range_header", [(), (("Range", "bytes=0-9"),), (("Range", "bytes=0-1,100-101"),)])
def test_a_blob_that_nginx_does_not_have_is_a_problem(range_header, accel_without_blobs):
    """The gateway has handed off, with the headers of a blob: of these, Cache-Control alone is left."""
    answer = accel_without_blobs(PATH, range_header)
    check_problem(answer, 404, cache_control="private, no-cache")
    assert answer.header("etag") is None


@pytest.mark.parametrize("shipped", FILES)
def test_every_status_that_nginx_has_of_its_own_has_a_text(shipped):
    text = (SHIPPED / shipped).read_text()
    assert "proxy_intercept_errors on" not in text
    found = re.findall(r"^ +(\d{3}) '(\{.*\})\\n';$", text, re.MULTILINE)
    bodies = {int(code): json.loads(body) for code, body in found}
    listed = re.search(r"error_page ([\d ]+) /_problem;", text)
    assert {int(code) for code in listed[1].split()} | {431} == set(bodies)
    assert set(bodies) >= {400, 408, 413, 414, 429, 431, 500, 502, 503, 504}
    for code, body in bodies.items():
        assert (body["type"], body["status"]) == ("about:blank", code)
        # Python has older names of these three up to 3.12.
        assert code in {413, 414, 416} or body["title"] == HTTPStatus(code).phrase


def test_both_files_have_the_same_problems():
    of_one, of_other = ((SHIPPED / name).read_text() for name in FILES)
    problems = of_one[of_one.index("map $status") : of_one.index("upstream cachegate")]
    assert problems in of_other
