"""Compute the engine's own hash of a key, and our keyed form of it.

The engine writes SHA-256 over `{"api_key": "<key>"}` into each entry of its auto-resolution cache, to
distinguish the entries of different keys. It is not salted: anyone who has one can test guesses of a weak key
against it. So we neither store nor print it. What we store, to find our key by it later, is an HMAC of it
under a pepper. The label separates that from everything else that is hashed under the same pepper: a key that
was imported by its SHA-256 can never be taken for an entry's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import NewType

from gateway.model.errors import BadNameError

CredentialHash = NewType("CredentialHash", str)

_HASH = re.compile(r"[0-9a-f]{64}")
_LABEL = b"cachegate: the engine's hash of a credential, version 1: "


def credential_hash(secret: str | None) -> CredentialHash:
    """The engine's hash of this key in its cache; None is a caller without a key."""
    return CredentialHash(hashlib.sha256(json.dumps({"api_key": secret}).encode()).hexdigest())


def parse_credential_hash(text: str) -> CredentialHash:
    """A hash as the engine writes it: 64 lower-case hex digits. Raises `BadNameError`."""
    if not _HASH.fullmatch(text):
        raise BadNameError("not the engine's hash of a credential: expected 64 lower-case hex digits")
    return CredentialHash(text)


def keyed_credential_hash(engine_hash: CredentialHash, key: bytes) -> bytes:
    """The stored form: it reveals nothing without `key`, which is a pepper's secret."""
    return hmac.digest(key, _LABEL + engine_hash.encode("ascii"), "sha256")
