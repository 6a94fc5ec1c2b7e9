"""Parsing the engine's requests, and what of them is sent upstream."""

from __future__ import annotations

import pytest

from gateway.engine.questions import MAX_VALUE_CHARACTERS, parse_question
from gateway.model.errors import Reason, Refusal
from gateway.model.limits import MAX_QUERY_FIELDS, MAX_TARGET_BYTES


def _reason(raw_query):
    with pytest.raises(Refusal) as refusal:
        parse_question(raw_query)
    return refusal.value.reason


def test_the_engine_s_own_question_is_read_and_written_the_same():
    raw_query = b"modelId=acme%2Fcars%2F1&startAfter=p%2B2&includeCoreMLPackages=true"
    question = parse_question(raw_query)
    assert question.model == "acme/cars/1"
    assert question.start_after == "p+2"
    assert question.extra == (("includeCoreMLPackages", "true"),)
    assert question.upstream_query().encode() == raw_query


def test_a_plus_is_a_space_and_an_escaped_one_a_plus():
    assert parse_question(b"modelId=my+cars%2B").model == "my cars+"


def test_an_id_is_decoded_once():
    assert parse_question(b"modelId=a%252Fb").model == "a%2Fb"


def test_parameters_of_callers_pass_in_their_order_and_repeated():
    question = parse_question(b"b=2&modelId=a&a=1&b=3&empty=")
    assert question.extra == (("b", "2"), ("a", "1"), ("b", "3"), ("empty", ""))
    assert question.upstream_query() == "modelId=a&b=2&a=1&b=3&empty="


def test_what_would_split_a_query_is_escaped_on_its_way_upstream():
    assert parse_question(b"modelId=a&x=1;y%3D2%26modelId%3Db").upstream_query() == (
        "modelId=a&x=1%3By%3D2%26modelId%3Db"
    )


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "API-KEY", "x_api_key", "access_token", "token", "key", "authorization"]
)
def test_a_key_in_the_query_never_goes_upstream(name):
    question = parse_question(f"modelId=a&{name}=s3cret".encode())
    assert question.extra == ()
    assert "s3cret" not in question.upstream_query()


@pytest.mark.parametrize("name", ["service_secret", "serviceSecret", "countinference"])
def test_internal_switches_from_outside_never_go_upstream(name):
    assert parse_question(f"modelId=a&{name}=x".encode()).extra == ()


@pytest.mark.parametrize(
    "raw_query",
    [
        b"",
        b"startAfter=x",
        b"modelId",
        b"modelId=",
        b"modelId=a&modelId=a",
        b"modelId=a&modelid=b",
        b"modelId=a&model_id=b",
        b"modelId=a&modelId[]=b",
        b"modelId=a&modelId%5B0%5D=b",
        b"%6dodelId=a&modelId=b",
        b"modelId=a&startAfter=x&startAfter=y",
        b"modelId=a&start_after=x",
        b"modelId=a&startAfter=",
        b"modelId=a&",
        b"&modelId=a",
        b"modelId=a&&x=1",
        b"modelId=a&flag",
        b"modelId=a&=1",
        b"modelId=a&n%C5%BC=1",
        b"modelId=a&a%00b=1",
        b"modelId=%",
        b"modelId=%ED%A0%80",
        b"modelId=a%00b",
        b"modelId=..%2Fetc",
        b"modelId=a%5Cb",
        b"modelId=a&x=%0d%0aHost:%20evil",
        b"modelId=a&x=%E2%80%A8",
        b"modelId=a b",
        b"modelId=a#b",
        b"modelId=\xc5\xbc",
    ],
)
def test_a_question_with_two_readings_is_refused(raw_query):
    assert _reason(raw_query) is Reason.MALFORMED_QUERY


def test_a_question_is_bounded():
    assert _reason(b"modelId=" + b"a" * MAX_TARGET_BYTES) is Reason.PATH_TOO_LONG
    assert _reason(b"modelId=a&x=" + b"a" * (MAX_VALUE_CHARACTERS + 1)) is Reason.MALFORMED_QUERY
    many = b"&x=1" * (MAX_QUERY_FIELDS - 1)
    assert len(parse_question(b"modelId=a" + many).extra) == MAX_QUERY_FIELDS - 1
    assert _reason(b"modelId=a&x=1" + many) is Reason.MALFORMED_QUERY
