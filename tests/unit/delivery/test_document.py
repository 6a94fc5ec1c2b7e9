"""Documents: JSON with its length, and the link to the next page."""

from __future__ import annotations

import json

import pytest

from gateway.delivery.document import answer_document, answer_json

DOCUMENT = {"models": [{"id": "żółć/1", "link": "/v1/models/%C5%BC"}], "after": None}


def test_a_document_is_json_of_the_announced_length():
    answer = answer_document(DOCUMENT)
    headers = dict(answer.headers.pairs)
    assert json.loads(answer.body) == DOCUMENT
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    assert headers[b"content-type"] == b"application/json"


def test_it_is_one_callers_and_no_cache_may_store_it():
    headers = dict(answer_document(DOCUMENT).headers.pairs)
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"vary"] == b"authorization, x-api-key"
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("link", [None, "/v1/models?limit=1&after=a%2Fb"])
def test_a_next_page_is_a_link_header_and_none_is_none(link):
    headers = dict(answer_document(DOCUMENT, next_page=link).headers.pairs)
    expected = f'<{link}>; rel="next"'.encode() if link else None
    assert headers.get(b"link") == expected


def test_what_is_json_already_is_sent_unchanged():
    answer = answer_json(b'{"a": 1}')
    assert answer.body == b'{"a": 1}'
    assert dict(answer.headers.pairs)[b"content-length"] == b"8"
