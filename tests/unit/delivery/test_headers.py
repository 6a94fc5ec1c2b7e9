from __future__ import annotations

from gateway.delivery.headers import asked_fields, delivery_headers


def test_a_document_is_one_callers_kept_by_nobody_and_names_its_record(blob_of, trace):
    receipt = blob_of(b"x").receipt()
    headers = dict(delivery_headers(receipt, content_type=b"text/plain", length=7, trace=trace))
    assert headers == {
        b"content-type": b"text/plain",
        b"content-length": b"7",
        b"cache-control": b"no-store",
        b"vary": b"authorization, x-api-key",
        b"x-content-type-options": b"nosniff",
        b"cachegate-record": receipt.record_id.encode(),
        b"traceparent": trace,
    }


def test_of_a_request_only_what_delivery_reads_is_kept():
    headers = [(b"range", b" a\t"), (b"x-accel-redirect", b"/x"), (b"range", b"b"), (b"if-match", b"c")]
    assert asked_fields(headers) == {b"range": [b"a", b"b"], b"if-match": [b"c"]}
