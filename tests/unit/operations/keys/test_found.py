"""Lists of found tokens: two forms, bounded, and never repeated."""

from __future__ import annotations

import json

import pytest

from gateway.model.errors import BadNameError
from gateway.operations.keys import found
from gateway.operations.keys.found import MAX_LIST_BYTES, MAX_TOKENS, parse_found


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        (b"", []),
        (b"\n \n", []),
        (b"one\r\n  two  \n\nthree", ["one", "two", "three"]),
        (b"\xef\xbb\xbfone\n", ["one"]),
        (b"[]", []),
        (b' ["one", "two"] ', ["one", "two"]),
        (b'[{"token": "one", "type": "t", "url": null, "source": {"a": [1]}}, "two"]', ["one", "two"]),
        (b"\xff\xfe", ["\ufffd\ufffd"]),
    ],
)
def test_a_list_is_lines_or_what_a_scanner_sends(raw, tokens):
    assert parse_found(raw) == tokens


SECRET = "cg_live_secretsecretsecret"


@pytest.mark.parametrize(
    "raw",
    [
        b"[",
        b"[" * 100_000,
        json.dumps([{"secret": SECRET}]).encode(),
        json.dumps([[SECRET]]).encode(),
        json.dumps([{"token": {"a": SECRET}}]).encode(),
        f'["{SECRET}"] {SECRET}'.encode(),
        f'["{SECRET}'.encode() + b'\xff"]',
        b"a\n" * (MAX_TOKENS + 1),
        json.dumps([SECRET] * (MAX_TOKENS + 1)).encode(),
        b"a" * (MAX_LIST_BYTES + 1),
    ],
)
def test_what_is_no_such_list_or_too_large_is_refused_without_repeating_it(raw):
    with pytest.raises(BadNameError) as refused:
        parse_found(raw)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "no-key"),
        ("short", "no-key"),
        ("with a blank in the middle", "no-key"),
        ("x" * 5000, "no-key"),
        ("häßlich-und-lang-genug", "no-key"),
        ("cg_live_000000000000000000000000000000", "mistyped"),
        ("cg_something_else_altogether", "mistyped"),
        ("eyJhbGciOiJFZERTQSJ9.e30.c2ln", "access-token"),
        ("an-opaque-key-of-a-platform", "unknown"),
    ],
)
def test_what_a_token_can_be_follows_from_its_form(text, kind):
    assert found._kind_of(text) == kind
