"""A fingerprint covers everything that `extract` reads, and nothing else."""

from __future__ import annotations

import pytest

from gateway.credential.fingerprint import fingerprint

KEY = (b"authorization", b"Bearer cg_test_" + b"a" * 30)
PLAIN = (b"host", b"gateway")


def test_other_fields_do_not_count():
    assert fingerprint([KEY], b"") == fingerprint([PLAIN, KEY, (b"cookie", b"a=b")], b"")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-api-key", KEY[1])],
        [KEY, KEY],
        [KEY, (b"x-api-key", b"")],
        [(b"authorization", KEY[1] + b" ")],
        [(b"authorization", KEY[1].lower())],
        [(b"x-api-key", b"k"), KEY],
        [KEY, (b"x-api-key", b"k")],
        # Concatenated without lengths, these would equal the one above.
        [(b"authorization", KEY[1] + b"\nx-api-key 1 k")],
    ],
)
def test_whatever_extract_could_tell_apart_has_another(headers):
    others = [[KEY], [KEY, (b"x-api-key", b"k")], [(b"x-api-key", b"k"), KEY]]
    prints = {fingerprint(one, b"") for one in others if one != headers}
    assert fingerprint(headers, b"") not in prints


def test_the_query_counts():
    assert fingerprint([KEY], b"") != fingerprint([KEY], b"a=b")
