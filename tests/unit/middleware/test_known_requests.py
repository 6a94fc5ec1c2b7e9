"""Requests that are known: what is kept of them, and how much."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.middleware.known_requests import KnownRequests, request_key
from gateway.model.access import Access, Action, Principal, Resource, ResourceKind, WireRequest
from gateway.model.facts import KeyKind
from gateway.model.names import FileHandle, KeyId, ModelId, PackageId
from gateway.model.stamps import Leaf, Stamp
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
    known.learn(key, with_request(admission, headers=headers))
    assert known.peek(key).request.headers == ((b"user-agent", b"curl"),)


@pytest.mark.parametrize(
    ("changes", "at_least"),
    [({"headers": ((b"user-agent", b"u " * 250),)}, 150), ({"raw_path": b"/" * 500}, 450)],  # an agent is cut
)
def test_what_clients_send_counts_towards_the_bound(changes, at_least, admission):
    plain, larger = (held_by(one) for one in (admission, with_request(admission, **changes)))
    assert at_least < larger - plain < at_least + 250


def held_by(admission):
    """What a request is charged. Of many like it only so many are known, and nothing is left of them."""
    known = KnownRequests(max_bytes=60_000)
    keys = [request_key(b"%d" % one, None) for one in range(100)]
    for key in keys:
        known.learn(key, admission)
    kept = [key for key in keys if known.peek(key)]
    assert 0 < len(kept) < len(keys)
    assert kept == keys[-len(kept) :]
    before = known.held_bytes
    known.drop(kept[0])
    charged = before - known.held_bytes
    for key in kept[1:]:
        known.drop(key)
    assert known.held_bytes == 0
    return charged


def test_a_file_is_counted_once_for_all_requests_for_it_and_the_records_as_well(admission):
    known, stamp = KnownRequests(max_bytes=1 << 20), Stamp(generation=1, leaves=(Leaf(b"a" * 500, b"v"),))
    held = []
    for number in range(3):
        known.learn(request_key(b"%d" % number, None), replace(admission, stamp=stamp))
        held.append(known.held_bytes)
    each = held[2] - held[1]
    assert held[1] - held[0] == each
    assert held[0] - each > FILE.held_bytes + stamp.leaves[0].held_bytes
    for number in range(3):
        known.drop(request_key(b"%d" % number, None))
    assert known.held_bytes == 0
