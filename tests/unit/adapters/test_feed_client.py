"""Whatever address a node has and whatever answers there: its reader is told so, and goes on."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from gateway.adapters.feed_client import FeedClient
from gateway.model.errors import Unavailable

KEY = "the-key-of-the-operator"
DEEP = (
    b'{"events":[{"cursor":"a","record":' + b"[" * 100_000 + b"]" * 100_000 + b'}],"next":"","at_end":true}'
)
ADDRESSES = ("", "http://", "ftp://x", "http://x\0y", "http://\u2603.", f"http://{'a' * 70}.example")


@pytest.fixture(scope="module")
def answering():
    """A server that answers as a test says."""

    class Handler(BaseHTTPRequestHandler):
        status, body = 200, b""

        def do_GET(self):
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Handler, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none_is_a_node_that_does_not_answer(address):
    with pytest.raises(Unavailable) as caught:
        FeedClient("https://gateway.example", KEY).read(address, None)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"), [(200, DEEP), (500, DEEP), (200, b"<html>"), (200, b"{}"), (302, b""), (500, b"[]")]
)
def test_an_answer_that_is_none_of_a_feed_is_one_to_ask_for_again(answering, status, body):
    handler, url = answering
    handler.status, handler.body = status, body
    with pytest.raises(Unavailable):
        FeedClient(url, KEY).read(url, None)


def test_a_key_goes_to_no_address_in_plain_text_where_the_named_one_is_encrypted():
    assert not FeedClient("https://gateway.example", KEY).may_be_told("http://node.example")
    assert FeedClient("https://gateway.example", KEY).may_be_told("https://node.example")
    assert FeedClient("http://127.0.0.1:8080", KEY).may_be_told("http://node.example")
