"""The key of a request for a token: one place for each way to ask, and none for a token."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import urlencode

import pytest

from gateway.credential.extract_client import API_KEY, EXCHANGE, has_client, parse_token_request
from gateway.model.access import WireRequest
from gateway.model.errors import Reason, Refusal

KEY, KEY_ID = "cg_live_" + "a" * 30, "key_0123456789ab"
FORM = (b"content-type", b"application/x-www-form-urlencoded")


def request_of(form, *headers, query=b"", kind=FORM):
    return WireRequest(
        method="POST",
        raw_path=b"/v1/token",
        query=query,
        headers=(kind, *headers),
        client="192.0.2.1",
        route="/v1/token",
        trace_id=None,
        received_at=0.0,
        form=form if isinstance(form, bytes) else urlencode(form).encode(),
    )


def basic(user, password):
    return b"authorization", b"Basic " + b64encode(f"{user}:{password}".encode())


def exchange(**more):
    return {"grant_type": EXCHANGE, "subject_token": KEY, "subject_token_type": API_KEY, **more}


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        parse_token_request(request_of(*arguments, **more))
    return caught.value.reason


def test_a_key_is_found_where_each_way_has_it():
    asked = parse_token_request(request_of(exchange(scope="read")))
    assert (asked.credential.secret, asked.claimed_client_id, asked.form["scope"]) == (KEY, None, "read")
    asked = parse_token_request(request_of({"grant_type": "client_credentials"}, basic(KEY_ID, KEY)))
    assert (asked.credential.secret, asked.claimed_client_id) == (KEY, KEY_ID)


def test_a_clients_secret_is_encoded_as_in_a_form():
    asked = parse_token_request(request_of({"grant_type": "client_credentials"}, basic(KEY_ID, "a%2Bkey%25")))
    assert asked.credential.secret == "a+key%"


def test_no_key_is_printed():
    request = request_of(exchange(), basic(KEY_ID, KEY))
    assert KEY not in repr(request)
    assert KEY not in repr(parse_token_request(request_of(exchange())))


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Bearer x"), (b"x-api-key", b"x"), (b"proxy-authorization", b"Basic eDp5")]
)
def test_a_second_credential_is_a_conflict_whatever_it_is(header):
    assert refusal(exchange(), header) is Reason.CONFLICTING_CREDENTIALS
    client = {"grant_type": "client_credentials"}
    assert refusal(client, basic(KEY_ID, KEY), header) is Reason.CONFLICTING_CREDENTIALS


@pytest.mark.parametrize("name", ["client_secret", "client_assertion", "subject_token", "actor_token"])
def test_a_key_in_the_form_beside_a_client_is_a_conflict(name):
    form = {"grant_type": "client_credentials", name: KEY}
    assert refusal(form, basic(KEY_ID, KEY)) is Reason.CONFLICTING_CREDENTIALS


def test_a_key_in_the_url_is_refused():
    assert refusal(exchange(), query=b"subject_token=x") is Reason.MALFORMED_QUERY
    assert refusal(exchange(), query=b"api_key=x") is Reason.KEY_IN_QUERY


@pytest.mark.parametrize("text", ["eyJhbGciOiJub25lIn0.e30.", "eyJ"])
def test_a_token_is_not_taken_for_a_key(text):
    assert refusal(exchange(subject_token=text)) is Reason.NOT_EXCHANGEABLE
    client = {"grant_type": "client_credentials"}
    assert refusal(client, basic(KEY_ID, text)) is Reason.NOT_EXCHANGEABLE


@pytest.mark.parametrize("text", ["a key", "a,key", "schlüssel", "k" * 4097])
def test_what_no_header_could_carry_is_no_key(text):
    assert refusal(exchange(subject_token=text)) is Reason.MALFORMED_CREDENTIAL


@pytest.mark.parametrize(
    "kind",
    [
        (b"content-type", b"application/json"),
        (b"content-type", b"application/x-www-form-urlencoded; charset=latin-1"),
        (b"content-type", b"application/x-www-form-urlencoded, text/plain"),
        (b"x", b"y"),
    ],
)
def test_a_form_has_one_content_type(kind):
    assert refusal(exchange(), kind=kind) is Reason.MALFORMED_BODY
    assert refusal(exchange(), FORM) is Reason.MALFORMED_BODY
    assert refusal(exchange(), (b"content-encoding", b"gzip")) is Reason.MALFORMED_BODY


def test_a_caller_without_anything_is_answered_as_a_client():
    assert has_client(request_of({"grant_type": "client_credentials"}))
    assert has_client(request_of(exchange(), basic(KEY_ID, KEY)))
    assert not has_client(request_of(exchange()))
