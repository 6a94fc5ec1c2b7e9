"""The Ed25519 key that signs the heads of audit chains: made once by `init`, read at every start.

It gets its name only once it is whole and on disk: half a key in its place would stop every start.

It is a file of the operator's, not a fact: whoever holds it can sign a chain that never was, which
is why heads are worth anchoring elsewhere (SECURITY.md).
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.model.errors import Conflict, Misconfigured

if TYPE_CHECKING:
    from pathlib import Path


_MEND = (
    "put the file back from a backup. If it is lost, move it away and run `cachegate init`, which makes "
    "another; keep the public key of the old one, by which older heads verify"
)


def create_signing_key(path: Path) -> None:
    """Write a new key, 0600, and never over an old one: the old one's heads would lose their proof."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)  # never over another, unlike a rename
        finally:
            unfinished.unlink()
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already") from error
    except OSError as error:
        raise Misconfigured(str(path), f"cannot be made: {error.strerror}") from error


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
        raise Misconfigured(str(path), f"is not a PEM private key without password; {_MEND}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(str(path), f"is not an Ed25519 key; {_MEND}")
    return key


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
