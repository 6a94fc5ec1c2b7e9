from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.middleware.shape import refusal_by_shape
from gateway.model.access import Action, GuardedRoute, Resource, ResourceKind, WireRequest
from gateway.model.errors import Reason
from gateway.model.limits import MAX_HEADER_BYTES, MAX_HEADER_COUNT, MAX_TARGET_BYTES

ROUTE = GuardedRoute(
    template="/f",
    methods=("GET", "HEAD"),
    action=Action.READ,
    matches=lambda raw: True,
    locate=lambda request: Resource(kind=ResourceKind.SELF),
)
REQUEST = WireRequest(
    method="GET",
    raw_path=b"/f",
    query=b"",
    headers=(),
    client="127.0.0.1",
    route="/f",
    trace_id=None,
    received_at=1.0,
)


def refusal(route=ROUTE, **changed):
    return refusal_by_shape(replace(REQUEST, **changed), route)


def test_an_ordinary_request_has_no_shape_to_refuse():
    assert refusal() is None
    assert refusal(headers=((b"content-length", b"0"),)) is None


def test_a_target_is_bounded_with_its_query():
    assert refusal(raw_path=b"/" + b"x" * (MAX_TARGET_BYTES - 2), query=b"y") is None
    assert refusal(raw_path=b"/" + b"x" * (MAX_TARGET_BYTES - 1), query=b"y") is Reason.PATH_TOO_LONG


def test_headers_are_bounded_in_number_and_in_bytes():
    many = ((b"a", b"b"),) * MAX_HEADER_COUNT
    assert refusal(headers=many) is None
    assert refusal(headers=(*many, (b"a", b"b"))) is Reason.HEADERS_TOO_LARGE
    assert refusal(headers=((b"a", b"b" * MAX_HEADER_BYTES),)) is Reason.HEADERS_TOO_LARGE


def test_what_matches_no_route_is_refused_before_its_method_is_looked_at():
    assert refusal(route=None, method="DELETE") is Reason.NO_ROUTE


@pytest.mark.parametrize("method", ["POST", "get", "", "CONNECT"])
def test_other_methods_are_refused(method):
    assert refusal(method=method) is Reason.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    "header",
    [
        (b"content-length", b"1"),
        (b"content-length", b"-1"),
        (b"content-length", b"+0"),
        (b"content-length", b"0x0"),
        (b"content-length", b"9" * 400),
        (b"content-length", "\u0660".encode()),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b""),
    ],
)
def test_a_body_that_announces_itself_is_refused(header):
    assert refusal(headers=(header,)) is Reason.BODY_TOO_LARGE


def test_a_missing_key_changes_nothing_about_shape():
    # The same for everybody: no credential, method or route of a caller's own is looked at here.
    with_key = refusal(headers=((b"authorization", b"Bearer x"),), method="POST")
    assert with_key is refusal(method="POST")
