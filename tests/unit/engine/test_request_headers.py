"""Which headers reach the provider."""

from __future__ import annotations

import pytest

from gateway.engine.request_headers import MAX_VALUE_BYTES, headers_for_upstream

OURS = (b"authorization", b"Bearer ours")


def _passed(*headers):
    return headers_for_upstream(headers, OURS)


def test_what_the_engine_and_its_server_send_of_their_own_passes():
    sent = [
        (b"user-agent", b"python-requests/2.34.2"),
        (b"accept", b"*/*"),
        (b"x-roboflow-inference-version", b"1.8.3"),
        (b"x-allow-chunked", b"true"),
    ]
    assert _passed(*sent) == (*sent, OURS)


@pytest.mark.parametrize(
    "name",
    [
        # switches of the provider's own
        b"x-enforce-internal-artefacts-urls",
        b"x-enforce-credits-verification",
        b"x-roboflow-internal-service-secret",
        # credentials that were not authenticated
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"cookie",
        # what frames a request
        b"host",
        b"connection",
        b"content-length",
        b"transfer-encoding",
        # dashes, to a CGI-style reader
        b"x_allow_chunked",
        b"user_agent",
        # anything else
        b"x-forwarded-for",
        b"traceparent",
        b"accept-encoding",
        b"x-anything",
    ],
)
def test_everything_else_is_dropped(name):
    assert _passed((name, b"x")) == (OURS,)


def test_the_client_s_credential_gives_way_to_the_one_that_was_authenticated():
    assert _passed((b"authorization", b"Bearer theirs"), (b"x-api-key", b"theirs")) == (OURS,)


def test_a_header_that_came_twice_goes_once():
    assert _passed((b"user-agent", b"a"), (b"user-agent", b"b")) == ((b"user-agent", b"a"), OURS)


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\x00", b"\xff", b"a" * (MAX_VALUE_BYTES + 1)])
def test_a_value_that_is_no_plain_text_is_dropped(value):
    assert _passed((b"user-agent", value)) == (OURS,)
