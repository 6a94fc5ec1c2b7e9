"""The engine's hash of a key, to the digit, and our keyed form of it."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from gateway.engine.credential_hash import credential_hash, keyed_credential_hash, parse_credential_hash
from gateway.model.errors import BadNameError

PEPPER = b"p" * 32


@pytest.mark.parametrize(
    ("secret", "digits"),
    [
        (None, "91d9e205685fee945e81d9d6fcfc785d50762ac9cbf4f00f5d5a58eb753d0d4f"),
        ("key-a", "a72655860d0c6611dcf8d57265a1bd35b4d95e89000b5a531dc651e10311e4d9"),
    ],
)
def test_it_is_what_the_engine_writes(secret, digits):
    assert credential_hash(secret) == digits


def test_no_key_and_an_empty_one_are_told_apart_as_the_engine_does():
    assert credential_hash("") != credential_hash(None)


def test_the_keyed_form_depends_on_the_hash_and_on_the_pepper():
    forms = {
        keyed_credential_hash(credential_hash(secret), pepper)
        for secret in ("key-a", "key-b")
        for pepper in (PEPPER, b"q" * 32)
    }
    assert len(forms) == 4
    assert {len(form) for form in forms} == {32}


def test_the_keyed_form_is_never_what_an_imported_key_is_stored_under():
    digits = credential_hash("key-a")
    stored = {
        hmac.digest(PEPPER, digits.encode(), "sha256"),
        hmac.digest(PEPPER, bytes.fromhex(digits), "sha256"),
        hmac.digest(PEPPER, hashlib.sha256(digits.encode()).digest(), "sha256"),
    }
    assert keyed_credential_hash(digits, PEPPER) not in stored


@pytest.mark.parametrize("text", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 64 + "\n"])
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(BadNameError):
        parse_credential_hash(text)
