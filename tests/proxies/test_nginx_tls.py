"""A real nginx in front, with `deploy/nginx/cachegate.conf` as it ships, passes content on unchanged."""

from __future__ import annotations

from hashlib import md5

import pytest

CONTENT = bytes(range(256)) * 2000
PATH = "/v1/models/acme/cars/1/-/pkgA1/weights.bin"
OF_THE_CONNECTION = {"server", "connection", "keep-alive"}  # nginx speaks for itself here


def essence(answer):
    """Status, headers and body, but for what differs from one answer to the next and what is of the hop."""
    status, headers, body = answer.comparable()
    return status, sorted(pair for pair in headers if pair[0] not in OF_THE_CONNECTION), body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_read_is_the_same_as_without_nginx(method, tls_site):
    answer = tls_site.ask(method=method)
    assert answer.status == 200
    assert answer.body == (CONTENT if method == "GET" else b"")
    assert essence(answer) == essence(tls_site.ask_gateway(method=method))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((("Range", "bytes=1000-1999"),), 206),
        ((("Range", "bytes=-5"),), 206),
        ((("Range", "bytes=999999999-"),), 416),
        ((("If-None-Match", "*"),), 304),
        ((("If-Match", '"other"'),), 412),
    ],
)
def test_conditions_and_ranges_are_the_same_as_without_nginx(headers, status, tls_site):
    answer = tls_site.ask(*headers)
    assert answer.status == status
    assert essence(answer) == essence(tls_site.ask_gateway(*headers))


def test_a_range_is_that_part(tls_site):
    assert tls_site.ask(("Range", "bytes=1000-1999")).body == CONTENT[1000:2000]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/globex/cars/1/-/pkgA1/weights.bin", 404),
        ("GET", "/v1/models/acme/../acme/cars/1/-/pkgA1/weights.bin", None),
        ("GET", "/v1//models/acme/%2e%2e/x", None),
        ("GET", "/nowhere", 404),
        ("DELETE", PATH, 405),
    ],
)
def test_a_refusal_is_byte_for_byte_as_without_nginx(method, path, status, tls_site):
    """The path goes on as it was written: what nginx tidied up might be another path."""
    answer = tls_site.ask(method=method, path=path)
    assert status in {None, answer.status}
    assert answer.status >= 400
    assert essence(answer) == essence(tls_site.ask_gateway(method=method, path=path))


def test_a_stranger_gets_the_same_as_without_nginx(tls_site):
    answer = tls_site.wire.get(PATH)
    assert answer.status == 401
    assert essence(answer) == essence(tls_site.gateway.wire.get(PATH))


def test_what_a_client_says_of_its_address_goes_no_further(tls_site):
    answer = tls_site.ask(("X-Forwarded-For", "203.0.113.9"))
    assert tls_site.installation.outcome_of(answer.record_id)["ending"] == "complete"
    assert "203.0.113.9" not in str(tls_site.installation.records())


def test_a_client_cannot_ask_for_a_location(tls_site):
    name = md5(CONTENT, usedforsecurity=False).hexdigest()
    answer = tls_site.wire.get(PATH, headers=(("X-Accel-Redirect", f"/_blobs/{name}"),))
    assert answer.status == 401
    assert answer.header("x-accel-redirect") is None


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_name_of_a_location_does_not_come_out(method, mismatched_site):
    """A gateway that was set up for the other file fails closed behind this one."""
    bare = mismatched_site.ask_gateway(method=method)
    assert bare.header("x-accel-redirect") is not None, "else there is nothing to be passed on"
    answer = mismatched_site.ask(method=method)
    assert answer.status == 404
    assert answer.header("x-accel-redirect") is None
    assert CONTENT not in answer.body
    assert "_blobs" not in f"{answer.headers}{answer.body}"


def test_no_request_line_is_in_the_logs_of_nginx(tls_site):
    tls_site.wire.get(PATH + "?se=1&sig=key_000000000000.AAAA", tls_site.token)
    logged = "".join(path.read_text() for path in tls_site.folder.glob("*.log"))
    assert " GET " in logged
    assert "sig=" not in logged
    assert "weights.bin" not in logged
