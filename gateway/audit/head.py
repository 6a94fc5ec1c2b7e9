"""Signed heads: the key that signs them, and which chains are alive.

A chain proves that nothing in it was changed; only a head proves where it ends. A head is a record
of its chain, and it is listed in `heads.jsonl` (`heads_file.py`), so cutting a segment leaves a
witness. Each head also names the chains that are being written on the node.

Whoever holds the signing key can tell another story. Against that, heads are kept elsewhere; nothing
here does that.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.audit.folder import FILE_MODE, LIVE_NAME, PUBLIC_KEY_NAME, chain_started
from gateway.audit.segment import Remedy, raise_fault
from gateway.model.errors import Misconfigured

if TYPE_CHECKING:
    from pathlib import Path

_END = b"-----END PUBLIC KEY-----"


def fingerprint(key: Ed25519PublicKey) -> str:
    """The name of a public key: the first 32 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def verify_signature(key: Ed25519PublicKey, signature: bytes, statement: bytes) -> None:
    """Raises `ValueError` unless this key signed this statement."""
    try:
        key.verify(signature, statement)
    except InvalidSignature:
        raise ValueError("the signature is not of this key over these bytes") from None


def parse_public_keys(pem: bytes, where: str) -> dict[str, Ed25519PublicKey]:
    """All Ed25519 keys of a PEM file, by fingerprint. Raises `Misconfigured`."""
    keys: dict[str, Ed25519PublicKey] = {}
    for block in pem.split(_END)[:-1]:
        try:
            key = serialization.load_pem_public_key(block + _END + b"\n")
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Misconfigured(where, "not a PEM public key; take a fresh copy of signing.pub") from error
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured(where, "expected Ed25519 public keys; this one is of another kind")
        keys[fingerprint(key)] = key
    if not keys:
        raise Misconfigured(where, "holds no public key; take a fresh copy of signing.pub")
    return keys


class Signer:
    """The signing key, used for heads and nothing else."""

    __slots__ = ("_key", "fingerprint")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, statement: bytes) -> bytes:
        """Ed25519, 64 bytes."""
        return self._key.sign(statement)

    def publish(self, folder: Path) -> None:
        """Add our public key to `signing.pub`; those of earlier days stay. Raises `OSError`."""
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path = folder / PUBLIC_KEY_NAME
        with suppress(FileNotFoundError):
            if pem in path.read_bytes():
                return
        # Not under a lock: two processes of one start may both add it, and twice the same key is one.
        descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        try:
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, pem) != len(pem):
                os.ftruncate(descriptor, size)  # half a key would spoil the file for good
                raise OSError(errno.ENOSPC, "a part was written")
        finally:
            os.close(descriptor)


class LiveChain:
    """Says that a chain's process is alive: a file that it holds locked, whatever way the process ends."""

    __slots__ = ("_descriptor", "_path")

    def __init__(self, folder: Path, chain: str) -> None:
        self._path = folder / LIVE_NAME / chain
        unlocked = self._path.with_name(f".{chain}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(unlocked, flags, FILE_MODE)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unlocked.rename(self._path)  # locked before anybody can see it
        except OSError as error:
            raise_fault(error, self._path, Remedy.NEW_CHAIN)

    def close(self) -> None:
        """The chain is over."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)


def find_live_chains(folder: Path) -> tuple[str, ...]:
    """The chains whose processes are alive, sorted; what dead ones left is tidied away."""
    live: list[str] = []
    try:
        entries = sorted(
            path for path in (folder / LIVE_NAME).iterdir() if chain_started(path.name) is not None
        )
    except OSError:
        return ()
    for path in entries:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            live.append(path.name)
        else:
            with suppress(OSError):
                path.unlink()
        finally:
            os.close(descriptor)
    return tuple(live)
