"""What the gateway accepts passes both of the shipped nginx files, and it answers the rest itself.

A lower bound of nginx's own would answer first, without a record (test_nginx_problems.py).
"""

from __future__ import annotations

import json

import pytest

from gateway.faces.hooks import MAX_BODY_BYTES
from gateway.model.limits import MAX_HEADER_BYTES, MAX_TARGET_BYTES

HOOK = json.dumps({"models": ["acme/none/1"]}).encode()


@pytest.fixture(params=["accel_site", "tls_site"])
def site(request):
    return request.getfixturevalue(request.param)


def is_the_gateways(answer):
    """Whether a refusal is of the gateway's making: on record, and in its form."""
    return bool(answer.record_id) and answer.header("content-type") == "application/problem+json"


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [len(HOOK), 2_000, 60_000, MAX_BODY_BYTES])
def test_the_platforms_webhook_gets_through(size, is_chunked, site):
    answer = site.post_hook(HOOK.ljust(size), is_chunked=is_chunked)
    assert answer.status == 200
    assert list(answer.json()) == ["generation", "not_ours_to_end"]


def test_a_webhook_that_is_forged_is_refused_by_the_gateway(site):
    answer = site.wire.send(
        b"POST /hooks/v1/authority HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: 20\r\n"
        b"Cachegate-Signature: t=1767225600,v1=%b\r\n\r\n" % (b"0" * 64) + b"{}".ljust(20)
    )
    assert answer.status == 401
    assert is_the_gateways(answer)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_webhook_that_is_too_long_is_not_taken_in(is_chunked, site):
    assert site.post_hook(HOOK.ljust(MAX_BODY_BYTES + 1), is_chunked=is_chunked).status == 413


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_webhook_is_never_on_the_disk_of_nginx(is_chunked, site):
    kept = site.folder / "body"  # a file that was there for a moment has changed the folder's time
    before = kept.stat().st_mtime_ns
    assert site.post_hook(HOOK.ljust(60_000), is_chunked=is_chunked).status == 200
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "path", [b"/", b"/hooks/v1/other", b"/hooks/v1/authority/", b"/v1/models/acme/cars/1/-/pkgA1/weights.bin"]
)
def test_nothing_else_takes_in_a_body(path, site):
    assert site.post_hook(HOOK.ljust(2_000), path=path).status == 413


@pytest.mark.parametrize("size", [12_000, 20_000, MAX_HEADER_BYTES - 1_000])
def test_one_header_field_may_be_as_long_as_all_of_them(size, site):
    answer = site.ask(("X-Padding", "a" * size), ("Range", "bytes=0-9"))
    assert answer.status == 206


def test_headers_that_are_too_large_are_refused_by_the_gateway(site):
    answer = site.ask(("X-Padding", "a" * 20_000), ("X-More", "a" * 20_000))
    assert answer.status == 431
    assert is_the_gateways(answer)


@pytest.mark.parametrize(("size", "status"), [(MAX_TARGET_BYTES, 404), (MAX_TARGET_BYTES + 100, 414)])
def test_targets_are_judged_by_the_gateway(size, status, site):
    answer = site.ask(("X-Padding", "a" * 20_000), path="/".ljust(size, "a"))
    assert answer.status == status
    assert is_the_gateways(answer)
