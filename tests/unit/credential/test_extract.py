from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gateway.credential.extract import KEY_PARAMETERS, MAX_CREDENTIAL_BYTES, extract, extract_plain
from gateway.model.access import Credential
from gateway.model.errors import Reason, Refusal

CASES = tomllib.loads((Path(__file__).parents[2] / "cases" / "credentials.toml").read_text())["case"]


def outcome(headers, query=b""):
    try:
        return {"credential": extract(headers, query).secret}
    except Refusal as refusal:
        return {"reason": refusal.reason.value}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_case_of_the_corpus_comes_out_as_written(case):
    headers = [(name.encode(), value.encode("latin-1")) for name, value in case.get("headers", [])]
    assert outcome(headers, case.get("query", "").encode()) == case["expect"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_order_of_the_headers_does_not_matter(case):
    headers = [(name.encode(), value.encode("latin-1")) for name, value in case.get("headers", [])]
    assert outcome(headers[::-1], case.get("query", "").encode()) == case["expect"]


def test_no_two_cases_have_one_name():
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_the_longest_credential_is_taken_and_a_longer_one_is_not():
    longest = b"k" * MAX_CREDENTIAL_BYTES
    assert extract([(b"x-api-key", longest)], b"").secret == longest.decode()
    with pytest.raises(Refusal) as caught:
        extract([(b"authorization", b"Bearer k" + longest)], b"")
    assert caught.value.reason is Reason.MALFORMED_CREDENTIAL


@pytest.mark.parametrize("name", sorted(KEY_PARAMETERS))
def test_every_key_parameter_is_refused_in_every_spelling(name):
    encoded = b"".join(b"%%%02X" % byte for byte in name)
    for query in (name, name.upper() + b"=", encoded + b"=x", b"a=b;" + name + b"=x", b"a&" + name):
        assert outcome([(b"x-api-key", b"abc")], query) == {"reason": "key-in-query"}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "api_key",
            "API-KEY",
            "apiKey[]",
            "apikey%5B0%5D",
            "?api_key",
            "%3Fapi_key",
            "x-api-key",
            "X_API_KEY",
        ),
        *("authorization", "Authorization", "+access_token", "access.token", "x-access-token"),
    ],
)
def test_a_key_parameter_is_known_by_its_letters(name):
    for query in (name, f"{name}=x", f"limit=1&{name}=x", f"limit=1;{name}=x"):
        assert outcome([(b"x-api-key", b"abc")], query.encode()) == {"reason": "key-in-query"}


@pytest.mark.parametrize("name", ["limit", "after", "monkey", "keyboard", "tokens", "a", "%", "[]", "?"])
def test_a_parameter_that_names_no_key_is_let_through(name):
    assert outcome([(b"x-api-key", b"abc")], f"{name}=api_key".encode()) == {"credential": "abc"}


def test_a_credential_and_a_refusal_do_not_print_the_key():
    secret = "cg_live_secretsecret"
    assert secret not in repr(Credential(secret))
    with pytest.raises(Refusal) as caught:
        extract([(b"x-api-key", f"{secret},{secret}".encode())], b"")
    assert secret not in repr(caught.value) + str(caught.value)


PLAIN = (b"authorization", b"Bearer cg_live_key")


@pytest.mark.parametrize(
    "headers",
    [
        [PLAIN],
        [PLAIN, (b"x-api-key", b"another")],
        [PLAIN, (b"x-api-key", b"")],
        [(b"x-api-key", b"cg_live_key")],
        [(b"authorization", b"Bearer local")],
        [(b"authorization", b"Bearer two words")],
        [(b"authorization", b"Bearer a,b")],
        [(b"authorization", b"bearer cg_live_key")],
        [(b"authorization", b"Bearer  cg_live_key ")],
        [(b"authorization", b"Basic cg_live_key")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer " + b"a" * 4097)],
        [(b"authorization", b"Bearer a\n")],
        [],
    ],
)
def test_a_plain_key_is_found_at_once_and_is_the_one_that_is_extracted(headers):
    plain = extract_plain(dict(headers))
    assert (plain is not None) == (headers == [PLAIN])
    if plain is not None:
        assert plain == extract(headers, b"")
