"""Create and load 32-byte secrets in files: created once, 0600, the same on every node, never in Redis.

    <state>/signing/links.key      64 lower-case hex digits and a newline: 32 random bytes

The use of a secret is defined where it is loaded: peppers, link keys, the webhook's key.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from gateway.identity.private_file import load_private, write_once
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES = 32  # the output size of HMAC-SHA-256: more adds nothing, less would be the weakest part

_TEXT = re.compile(rb"([0-9a-f]{64})\n?")


def create_secret(path: Path) -> bytes:
    """Write a new random secret. When two commands race for one file, the second gets `Conflict`."""
    secret = secrets.token_bytes(SECRET_BYTES)
    write_once(path, secret.hex().encode("ascii") + b"\n")
    return secret


def load_secret(path: Path) -> bytes:
    """The secret in a file. Raises `Misconfigured` when it is missing or invalid."""
    match = _TEXT.fullmatch(load_private(path))
    if match is None:
        raise Misconfigured(str(path), "expected 64 lower-case hex digits and nothing else")
    return bytes.fromhex(match[1].decode("ascii"))
