"""Reasons of revocations: one line, without any secret."""

from __future__ import annotations

import pytest

from gateway.model.errors import BadNameError
from gateway.operations.keys.revoking import parse_reason


@pytest.mark.parametrize("text", ["a" * 201, "two\nlines", "\x1b[31m"])
def test_a_reason_is_one_printable_line(text):
    with pytest.raises(BadNameError):
        parse_reason(text)


def test_a_key_or_token_in_a_reason_is_removed():
    key, token = "cg_live_0123456789abcdefghijklmn012345", "eyJhbGciOiJFZERTQSJ9.e30.c2ln"
    said = parse_reason(f"{key} and {token} were in a log")
    assert key not in said
    assert token not in said
    assert said.endswith("were in a log")
