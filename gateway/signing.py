"""The Ed25519 key that signs the heads of audit chains: made once by `init`, read at every start.

It is a file of the operator's, not a fact: whoever holds it can sign a chain that never was, which
is why heads are worth anchoring elsewhere (SECURITY.md).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path


def create_signing_key(path: Path) -> None:
    """Write a new key, 0600, and never over an old one: the old one's heads would lose their proof."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be made: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read the key. Raises `Misconfigured` when it is missing, open to others or another kind of key."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(4096)
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be read ({error.strerror}); run `cachegate init`") from error
    if mode & 0o077:
        why = f"is open to others (mode {mode & 0o7777:04o}): run `chmod 600 {path}`"
        raise Misconfigured(str(path), why)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Misconfigured(str(path), "is not a PEM private key without password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(str(path), "is not an Ed25519 key")
    return key
