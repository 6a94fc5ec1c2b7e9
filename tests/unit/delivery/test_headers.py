"""What every delivered answer carries: it belongs to one caller and to one audit record."""

from __future__ import annotations

from gateway.delivery.headers import delivery_headers


def test_an_answer_is_for_its_caller_alone_and_names_its_record(identity_receipt):
    headers = dict(delivery_headers(identity_receipt, content_type=b"text/plain", length=3, trace=b"trace"))
    assert headers == {
        b"content-type": b"text/plain",
        b"content-length": b"3",
        b"cache-control": b"private, no-cache",
        b"vary": b"authorization, x-api-key",
        b"x-content-type-options": b"nosniff",
        b"cachegate-record": identity_receipt.record_id.encode(),
        b"traceparent": b"trace",
    }


def test_each_answer_has_headers_of_its_own(identity_receipt):
    first, second = (
        delivery_headers(identity_receipt, content_type=b"a", length=1, trace=b"") for _ in range(2)
    )
    first.append((b"link", b"x"))
    assert (b"link", b"x") not in second
