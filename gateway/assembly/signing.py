"""The Ed25519 key that signs the heads of audit chains: made by `init`, read at every start.

It is a file of the operator's, not a fact. The holder of the key can sign a forged chain, which is why heads
should be anchored elsewhere (SECURITY.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.audit.head import Signer, fingerprint, parse_public_keys
from gateway.audit.key_changes import append_change, state_change
from gateway.identity.private_file import load_private, write_once
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import refuse, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from gateway.model.trusted_files import Distrusted


EARLIER_NAME = "audit.earlier.pub"
"""Beside the signing key: the public halves of those that it replaced. Who may write there has the key."""


MOST_EARLIER = 32  # a private file has 4 KiB, and a key in PEM 113 bytes


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """The fingerprints of a key that was replaced and of the one that signs now."""

    old: str
    new: str


_MEND = (
    "put the file back from a backup. If it is lost, move it away and run `cachegate init`, which makes "
    "another; keep the public key of the old one, by which older heads verify"
)


def create_signing_key(path: Path) -> None:
    """Write a new key, 0600. Never overwrites a key: its heads could not be verified any more."""
    write_once(path, _pem(Ed25519PrivateKey.generate()))


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


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


def load_earlier_keys(
    path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> tuple[Ed25519PublicKey, ...]:
    """The public halves of the keys that this one replaced; none if it replaced none."""
    earlier = path.with_name(EARLIER_NAME)
    if not earlier.exists():
        return ()
    return tuple(parse_public_keys(load_private(earlier, on_distrust=on_distrust), str(earlier)).values())


def load_own_keys(
    path: Path, *, on_distrust: Callable[[Distrusted], None] = refuse
) -> list[Ed25519PublicKey]:
    """The public keys by which heads of this installation verify: its own, and those before it."""
    own = load_signing_key(path, on_distrust=on_distrust).public_key()
    return [*load_earlier_keys(path, on_distrust=on_distrust), own]


def replace_signing_key(path: Path, folder: Path, time: str) -> Replaced:
    """Have another key sign from now on, which the one in use signs first (`audit/key_changes.py`).

    A running process goes on with the key that it has. In this order, so that an end at any point leaves keys
    by which everything verifies: the new key; the statement in the audit folder; the old public key beside
    it; then the new key takes the place of the old one, which is gone for good.
    """
    old = load_signing_key(path)
    following = path.with_name(f".{path.name}.next")
    following.unlink(missing_ok=True)  # of a run that was ended: nothing was signed with it
    new = Ed25519PrivateKey.generate()
    write_once(following, _pem(new))
    signer = Signer(old)
    try:
        append_change(folder, state_change(signer, new.public_key(), time))
        _remember(path.with_name(EARLIER_NAME), load_earlier_keys(path), old.public_key())
        following.replace(path)
        sync_folder(path.parent)
        Signer(new).publish(folder)
    except OSError as error:
        raise Misconfigured(
            str(path), f"cannot be replaced ({error.strerror}); the old key signs on"
        ) from error
    return Replaced(old=signer.fingerprint, new=fingerprint(new.public_key()))


def _remember(earlier: Path, known: tuple[Ed25519PublicKey, ...], old: Ed25519PublicKey) -> None:
    keys = {fingerprint(one): one for one in (*known, old)[-MOST_EARLIER:]}
    pem = b"".join(one.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for one in keys.values())
    following = earlier.with_name(f".{earlier.name}.next")
    following.unlink(missing_ok=True)
    write_once(following, pem)
    following.replace(earlier)
