"""The Ed25519 key that signs the heads of audit chains: made once by `init`, read at every start.

It is a file of the operator's, not a fact. The holder of the key can sign a forged chain, which is why heads
should be anchored elsewhere (SECURITY.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.identity.private_file import load_private, write_once
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import refuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.model.trusted_files import Distrusted


_MEND = (
    "put the file back from a backup. If it is lost, move it away and run `cachegate init`, which makes "
    "another; keep the public key of the old one, by which older heads verify"
)


def create_signing_key(path: Path) -> None:
    """Write a new key, 0600. Never overwrites a key: its heads could not be verified any more."""
    key = Ed25519PrivateKey.generate()
    write_once(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load_signing_key(path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse) -> Ed25519PrivateKey:
    """Read the key. Raises `Misconfigured` when it is missing, open to others or another kind of key."""
    pem = load_private(path, on_distrust=on_distrust)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise Misconfigured(str(path), f"is not a PEM private key without password; {_MEND}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(str(path), f"is not an Ed25519 key; {_MEND}")
    return key
