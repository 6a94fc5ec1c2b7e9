from __future__ import annotations

from base64 import b64decode
from hashlib import sha256

import pytest

from gateway.delivery.digests import MAX_FIELD_BYTES, entity_tag, is_digest_wanted, repr_digest

# RFC 9530, appendix A: the digest of {"hello": "world"} and a line end.
EXAMPLE = b'{"hello": "world"}\n'


def test_the_digest_is_the_one_of_the_standard():
    found = repr_digest(sha256(EXAMPLE).hexdigest())
    assert found == b"sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


def test_the_digest_is_the_sha256_itself():
    value = repr_digest("ab" * 32)
    assert b64decode(value.removeprefix(b"sha-256=:").removesuffix(b":")) == b"\xab" * 32


def test_the_tag_is_strong_and_says_the_sha256():
    assert entity_tag("ab" * 32) == b'"' + b"ab" * 32 + b'"'


@pytest.mark.parametrize(
    "raw", [b"sha-256=0", b"a=1, sha-256=0", b"sha-256=0 ,\tb=2", b"sha-256=-0", b"sha-256=00"]
)
def test_a_weight_of_0_refuses_it(raw):
    assert not is_digest_wanted([raw])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"sha-256",
        b"sha-256=1",
        b"sha-256=0.0",
        b"sha-256=0, sha-256=1",
        b"sha-256=:AA==:",
        b"sha-256 = 0",
        b"sha-256=0;",
        b"sha-256=0 b=1",
        b"xsha-256=0",
        b"\xff",
    ],
)
def test_whatever_does_not_refuse_it_leaves_it(raw):
    assert is_digest_wanted([raw])


def test_a_field_that_is_longer_than_any_clients_is_ignored():
    refusing = b"sha-256=0"
    assert not is_digest_wanted([refusing + b";a" * ((MAX_FIELD_BYTES - len(refusing)) // 2)])
    assert is_digest_wanted([refusing + b";a" * (MAX_FIELD_BYTES // 2)])


def test_without_the_field_it_is_sent():
    assert is_digest_wanted([])
