"""Documents: JSON with its length, its record id, and the link to the next page."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway.delivery.document import send_document
from gateway.delivery.steps import READ_BYTES
from gateway.model.access import Principal
from gateway.model.facts import KeyKind
from gateway.model.names import KeyId
from gateway.model.verdicts import Identity

DOCUMENT = {"models": [{"id": "żółć/1", "link": "/v1/models/%C5%BC"}], "after": None}


PRINCIPAL = Principal(
    kind=KeyKind.ADMIN,
    key_id=KeyId("key_abcdefghijkl"),
    key_name="",
    tenant=None,
    scopes=frozenset(),
    expires_at=None,
)


@pytest.fixture
def identity_receipt(new_receipt):
    return new_receipt(Identity(principal=PRINCIPAL))


@pytest.fixture
def server(new_client):
    return new_client()


def deliver(receipt, server, *, method="GET", link=None):
    asyncio.run(send_document(receipt, DOCUMENT, method=method, trace=b"trace", link=link, send=server.send))


def test_a_document_is_json_of_the_announced_length(identity_receipt, server):
    deliver(identity_receipt, server)
    assert json.loads(server.body) == DOCUMENT
    assert server.headers[b"content-length"] == b"%d" % len(server.body)
    assert server.headers[b"content-type"] == b"application/json"


def test_head_gets_the_headers_of_get_and_no_body(identity_receipt, server):
    deliver(identity_receipt, server)
    headers = server.headers
    server.messages.clear()
    deliver(identity_receipt, server, method="HEAD")
    assert (server.headers, server.body) == (headers, b"")


def test_a_long_document_comes_in_messages_that_no_client_can_have_queued_at_once(identity_receipt, server):
    document = {"text": "a" * (5 * READ_BYTES // 2)}
    asyncio.run(
        send_document(identity_receipt, document, method="GET", trace=b"t", link=None, send=server.send)
    )
    assert json.loads(server.body) == document
    assert server.headers[b"content-length"] == b"%d" % len(server.body)
    sizes = [len(message["body"]) for message in server.messages[1:]]
    assert sizes[:-1] == [READ_BYTES, READ_BYTES]
    assert 0 < sizes[-1] <= READ_BYTES


@pytest.mark.parametrize("link", [None, "/v1/models?limit=1&after=a%2Fb"])
def test_a_next_page_is_a_link_header_and_none_is_none(link, identity_receipt, server):
    deliver(identity_receipt, server, link=link)
    expected = f'<{link}>; rel="next"'.encode() if link else None
    assert server.headers.get(b"link") == expected
