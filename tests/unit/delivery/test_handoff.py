from __future__ import annotations

from gateway.delivery.file_answer import plan_delivery
from gateway.delivery.handoff import handoff_headers
from gateway.delivery.headers import asked_fields

PREFIX = "/_blobs"


def handed(file, headers=(), prefix=PREFIX, method="GET"):
    asked = asked_fields(headers)
    plan = plan_delivery(method, asked, size=file.size, sha256=file.sha256, is_blob=file.md5 is not None)
    return handoff_headers(plan.status, plan.headers, file, prefix, headers)


def test_a_pinned_blob_is_handed_over_by_its_own_digest(blob_of):
    blob = blob_of(b"content")
    headers = dict(handed(blob.opened()))
    assert headers[b"x-accel-redirect"] == f"/_blobs/{blob.md5}".encode()
    assert headers[b"content-length"] == b"0"
    assert headers[b"content-type"] == b"application/octet-stream"
    assert headers[b"etag"] == f'"{blob.sha256}"'.encode()
    assert b"repr-digest" in headers
    assert b"accept-ranges" not in headers  # nginx adds it itself


def test_what_nginx_has_no_place_for_or_nobody_has_checked_stays_here(blob_of):
    blob = blob_of(b"content")
    assert handed(blob.opened(is_pinned=False)) is None
    assert handed(blob.opened(is_blob=False)) is None
    assert handed(blob.opened(), prefix=None) is None


def test_not_modified_is_ours_to_say(blob_of):
    blob = blob_of(b"content")
    assert handed(blob.opened(), [(b"if-none-match", f'"{blob.sha256}"'.encode())]) is None


def test_ranges_are_the_proxys(blob_of):
    headers = dict(handed(blob_of(b"content").opened(), [(b"range", b"bytes=0-1,3-4")]))
    assert headers[b"content-type"] == b"application/octet-stream"
    assert b"content-range" not in headers


def test_head_is_handed_over_as_get_is(blob_of):
    file = blob_of(b"content").opened()
    assert handed(file, method="HEAD") == handed(file)


def test_what_nginx_would_refuse_is_sent_from_here(blob_of):
    blob = blob_of(b"content")
    file, etag = blob.opened(), f'"{blob.sha256}"'.encode()
    assert handed(file, [(b"if-match", etag)]) is None
    assert handed(file, [(b"if-unmodified-since", b"Thu, 01 Jan 1970 00:00:00 GMT")]) is None
    assert handed(file, [(b"if-none-match", b'"other"'), (b"if-range", etag)]) is not None


def test_nothing_that_a_client_sends_is_in_the_location(blob_of):
    file = blob_of(b"content").opened()
    hostile = [(b"x-accel-redirect", b"/etc/passwd"), (b"x-sendfile", b"/x"), (b"x-accel-mapping", b"/=/")]
    assert handed(file, hostile) == handed(file)
