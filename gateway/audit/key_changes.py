"""Replace the signing key: the old key signs the new one, and whoever trusts the old one trusts the new one.

`signing.changes` in the audit folder has one signed statement for each change, in canonical form. Trust
goes forward only: a new key says nothing about an old one, so an auditor keeps the first public key that was
given and follows from there. Without the file the heads of the new key are of an unknown signer, which is
damage; so it cannot be removed unnoticed either.

The old key can go on signing what is dated before its change. Time stamps of heads (`anchors.py`) show that
such a head was not there at the time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.audit.canonical import parse_document
from gateway.audit.folder import FILE_MODE
from gateway.audit.head import fingerprint, verify_signature
from gateway.audit.record import SCHEMA_VERSION, encode, encode_signed
from gateway.audit.segment import write_whole
from gateway.model.trusted_files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from gateway.audit.head import Signer

KEY_CHANGES_NAME = "signing.changes"
MAX_CHANGES = 1000  # 300 bytes each; one a day for three years
_MAX_BYTES = 1 << 20

Keys = dict[str, Ed25519PublicKey]


class KeyChange(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="key-change",
):
    """A statement of the old key, `signer`: from this time on the other key signs. `key` is in hex."""

    schema: int
    time: str
    signer: str
    key: str
    signature: str = ""


def state_change(old: Signer, new: Ed25519PublicKey, time: str) -> bytes:
    """The signed statement, as a line."""
    change = KeyChange(
        schema=SCHEMA_VERSION, time=time, signer=old.fingerprint, key=new.public_bytes_raw().hex()
    )
    return encode_signed(change, old.sign) + b"\n"


def append_change(folder: Path, line: bytes) -> None:
    """Add a statement to the folder's file, synced. Raises `OSError`."""
    path = folder / KEY_CHANGES_NAME
    descriptor = os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
    )
    try:
        size = os.fstat(descriptor).st_size
        try:
            write_whole(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    sync_folder(folder)


def load_changes(path: Path) -> list[dict[str, Any]]:
    """The statements of a file, unverified; none without a file. Raises `OSError` and `ValueError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return []
    lines = raw.splitlines()
    if len(raw) > _MAX_BYTES or len(lines) > MAX_CHANGES:
        raise ValueError("it is too long")
    return [parse_document(line) for line in lines]


def follow(keys: Mapping[str, Ed25519PublicKey], unverified_changes: Iterable[dict[str, Any]]) -> Keys:
    """These keys and those that they signed, directly or through others. Raises `ValueError`.

    The changes are given in order. One by a key that is not trusted adds none, whatever it says.
    """
    trusted: Keys = dict(keys)
    for values in unverified_changes:
        try:
            change = msgspec.convert(values, KeyChange)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a change of a key: {error}") from error
        signer = trusted.get(change.signer)
        if signer is None:
            continue
        statement = encode(msgspec.structs.replace(change, signature=""))
        verify_signature(signer, bytes.fromhex(change.signature), statement)
        new = Ed25519PublicKey.from_public_bytes(bytes.fromhex(change.key))
        trusted[fingerprint(new)] = new
    return trusted
