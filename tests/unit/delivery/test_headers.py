from __future__ import annotations

from gateway.delivery.headers import asked_fields


def test_of_a_request_only_what_delivery_reads_is_kept():
    headers = [(b"range", b" a\t"), (b"x-accel-redirect", b"/x"), (b"range", b"b"), (b"if-match", b"c")]
    assert asked_fields(headers) == {b"range": [b"a", b"b"], b"if-match": [b"c"]}
