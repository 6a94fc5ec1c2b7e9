"""Refusals by the form of a request alone, for every caller and on every server."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.middleware.shape import refusal_by_shape
from gateway.model.access import Action, Resource, ResourceKind
from gateway.model.errors import Reason
from gateway.model.routes import GuardedRoute, HookRoute
from tests import samples

ROUTE = GuardedRoute(
    template="/a",
    methods=("GET",),
    action=Action.READ,
    matches=lambda raw: True,
    locate=lambda request: Resource(kind=ResourceKind.SELF),
)


def refusal(*headers):
    request = samples.wire_request(raw_path=b"/a", headers=headers, client="", route="/a")
    return refusal_by_shape(request, ROUTE)


def lengths(*values):
    return refusal(*((b"content-length", value) for value in values))


@pytest.mark.parametrize(
    "values",
    [
        *([b"1"], [b"9999"], [b"0000000000009999"], [b"9" * 30], [b"0" * 30 + b"1"]),
        *([b""], [b"-0"], [b"+0"], [b"0x0"], [b" 0"], [b"0 "], [b"0,0"], [b"\xb2"]),
        *([b"0", b"10"], [b"10", b"0"]),
    ],
)
def test_a_body_is_too_large_however_its_length_is_written(values):
    assert lengths(*values) is Reason.BODY_TOO_LARGE


@pytest.mark.parametrize("value", [b"0", b"00", b"0" * 30])
def test_no_body_is_no_body_however_its_length_is_written(value):
    assert lengths(value) is None


@pytest.mark.parametrize("coding", [b"chunked", b"identity", b""])
def test_a_body_of_unknown_length_is_too_large(coding):
    assert refusal((b"transfer-encoding", coding)) is Reason.BODY_TOO_LARGE
    assert refusal((b"content-length", b"0"), (b"transfer-encoding", coding)) is Reason.BODY_TOO_LARGE


def test_a_route_that_reads_json_has_a_bound_of_its_own():
    route = replace(ROUTE, methods=("POST",), body_bytes=100)

    def of(*headers):
        request = samples.wire_request(method="POST", raw_path=b"/a", headers=headers, route="/a")
        return refusal_by_shape(request, route)

    assert of((b"content-length", b"100")) is None
    assert of((b"transfer-encoding", b"chunked")) is None
    assert of((b"content-length", b"101")) is Reason.BODY_TOO_LARGE
    assert of((b"content-length", b"5"), (b"transfer-encoding", b"chunked")) is Reason.BODY_TOO_LARGE


def hook_refusal(*headers):
    hook = HookRoute(
        template="/a", methods=("POST",), max_body_bytes=100, matches=lambda raw: True, take=None
    )
    request = samples.wire_request(method="POST", raw_path=b"/a", headers=headers, client="", route="/a")
    return refusal_by_shape(request, hook)


def test_a_hooks_body_may_come_in_chunks_which_its_reader_counts():
    assert hook_refusal((b"transfer-encoding", b"chunked")) is None
    assert hook_refusal((b"transfer-encoding", b"Chunked")) is None
    assert hook_refusal((b"content-length", b"100")) is None


@pytest.mark.parametrize(
    "headers",
    [
        ((b"content-length", b"101"),),
        ((b"transfer-encoding", b"gzip, chunked"),),
        ((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")),
        ((b"transfer-encoding", b"chunked"), (b"content-length", b"5")),
    ],
)
def test_a_hooks_body_of_another_coding_or_length_is_too_large(headers):
    assert hook_refusal(*headers) is Reason.BODY_TOO_LARGE
