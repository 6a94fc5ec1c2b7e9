"""Requests that are known: what is kept of them, and how much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.middleware.known_requests import KnownRequests, request_key
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import KeyKind, Stamp
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId
from gateway.model.verdicts import Admission, Allowed, HeldFile

STAMP = Stamp(generation=1, leaves=())
FILE = HeldFile(
    descriptor=-1,
    size=1000,
    identity=(1, 2, 1000, 4, 5),
    model=ModelId("acme/cars/1"),
    package=PackageId("pkgA1"),
    handle=FileHandle("weights.onnx"),
    md5=None,
    sha256="ab" * 32,
    content=b"x" * 1000,
)
SECRETS = [
    (b"authorization", b"Bearer key"),
    (b"x-api-key", b"key"),
    (b"cookie", b"session=1"),
    (b"proxy-authorization", b"Basic x"),
]


@pytest.fixture
def admission():
    principal = Principal(
        kind=KeyKind.TENANT,
        key_id=KeyId("key_000000000000"),
        key_name="",
        tenant=None,
        scopes=frozenset(),
        expires_at=None,
    )
    access = Access(principal=principal, action=Action.READ, resource=Resource(kind=ResourceKind.FILE))
    request = WireRequest(
        method="GET",
        raw_path=b"/",
        query=b"",
        headers=(),
        client="127.0.0.1",
        route="/",
        trace_id=None,
        received_at=0.0,
    )
    allowed = Allowed(access=access, model=None, policies=(), grant=None, stamp=STAMP)
    return Admission(request=request, allowed=allowed, found=FILE, stamp=STAMP, key_stamp=STAMP)


def with_request(admission, **changes):
    return replace(admission, request=replace(admission.request, **changes))


def test_only_what_a_record_is_made_of_is_kept_of_the_fields(admission):
    known, key = KnownRequests(max_bytes=10_000), request_key(b"GET", None)
    headers = (*SECRETS, (b"user-agent", b"curl"), *((b"a%d" % one, b"1") for one in range(90)))
    known.learn(key, with_request(admission, headers=headers), FILE)
    assert known.find(key).request.headers == ((b"user-agent", b"curl"),)


@pytest.mark.parametrize(
    ("changes", "most"),
    [({"headers": ((b"user-agent", b"u " * 250),)}, 9), ({"raw_path": b"/" * 500}, 3)],  # an agent is cut
)
def test_what_clients_send_counts_towards_the_bound(changes, most, admission):
    known = KnownRequests(max_bytes=3000)
    keys = [request_key(b"%d" % one, None) for one in range(20)]
    for key in keys:
        known.learn(key, with_request(admission, **changes), FILE)
    kept = [key for key in keys if known.find(key)]
    assert kept in (keys[-most:], keys[-most - 1 :])  # beside one file of 1000 bytes
    for key in kept:
        known.forget(key)
    assert known._bytes == 0
