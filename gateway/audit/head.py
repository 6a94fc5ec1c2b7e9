"""Sign chain heads, publish the public key, and mark and find the chains that are being written.

A chain proves that nothing in it was changed; only a signed head proves how far it goes. A head is a
record of its chain and is also listed in `heads.jsonl` (`heads_file.py`), so cutting a segment leaves
evidence there. Each head also names the chains being written on the node, and says what `heads.jsonl`
contained when the head was made, so cutting that file leaves evidence in every later head.

Non-goal: a holder of the signing key can forge a consistent log. Only copies of heads kept elsewhere show
that; nothing here makes them.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.audit.folder import FILE_MODE, LIVE_NAME, PUBLIC_KEY_NAME, chain_started, create_locked
from gateway.audit.segment import WriteRemedy, raise_fault, write_whole
from gateway.model.errors import Misconfigured
from gateway.model.file_lock import is_at, try_lock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


def fingerprint(key: Ed25519PublicKey) -> str:
    """The id of a public key: the first 32 hex digits of the SHA-256 of its 32 bytes."""
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
        whole = block[max(0, block.rfind(_BEGIN)) :]  # a killed process may have left a partial key
        try:
            key = serialization.load_pem_public_key(whole + _END + b"\n")
        except (ValueError, UnsupportedAlgorithm) as error:
            raise Misconfigured(where, "not a PEM public key; take a fresh copy of signing.pub") from error
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured(where, "expected Ed25519 public keys; this one is of another kind")
        keys[fingerprint(key)] = key
    if not keys:
        raise Misconfigured(where, "holds no public key; take a fresh copy of signing.pub")
    return keys


class Signer:
    """The signing key: it signs heads, and the key that replaces it.

    `public_keys` has those that it replaced as well: chains that they signed may have to be recovered.
    """

    __slots__ = ("_key", "fingerprint", "public_keys")

    def __init__(self, key: Ed25519PrivateKey, earlier: Sequence[Ed25519PublicKey] = ()) -> None:
        self._key = key
        self.fingerprint = fingerprint(key.public_key())
        self.public_keys = {fingerprint(one): one for one in (*earlier, key.public_key())}

    def sign(self, statement: bytes) -> bytes:
        """Sign with Ed25519; 64 bytes."""
        return self._key.sign(statement)

    def publish(self, folder: Path) -> None:
        """Add our public key to `signing.pub`; earlier keys stay. Raises `OSError`."""
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        path = folder / PUBLIC_KEY_NAME
        with suppress(FileNotFoundError):
            if pem in path.read_bytes():
                return
        # Without a lock: two processes that start together may both add the key; a duplicate does no harm.
        descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE
        )
        try:
            size = os.fstat(descriptor).st_size
            try:
                write_whole(descriptor, pem)
            except OSError:
                os.ftruncate(descriptor, size)  # a partial key would make the file unreadable
                raise
        finally:
            os.close(descriptor)


class LiveChain:
    """Marks a chain as alive: a file that its process holds locked, released however the process ends.

    Until `announce` the file has a hidden name: other heads name a chain only once it has its own head.
    """

    __slots__ = ("_descriptor", "_hidden", "_path")

    def __init__(self, folder: Path, chain: str) -> None:
        self._path = folder / LIVE_NAME / chain
        self._hidden = self._path.with_name(f".{chain}")
        try:
            self._descriptor = create_locked(self._hidden)
        except OSError as error:
            raise_fault(error, self._path, WriteRemedy.NEW_CHAIN)

    def announce(self) -> None:
        """Make the file visible under the chain's name; each later head tries again if it is not there."""
        with suppress(OSError):
            if is_at(self._path, self._descriptor):
                return
            if not is_at(self._hidden, self._descriptor):
                descriptor = create_locked(self._hidden)
                os.close(self._descriptor)
                self._descriptor = descriptor
            self._hidden.rename(self._path)

    def close(self) -> None:
        """Remove the mark: the chain has ended."""
        for path in (self._path, self._hidden):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            os.close(descriptor)


def find_live_chains(folder: Path) -> tuple[str, ...]:
    """The chains whose processes are alive, sorted. Marks of dead processes are left to `recovery`."""
    try:
        names = sorted(path.name for path in (folder / LIVE_NAME).iterdir())
    except OSError:
        return ()
    return tuple(
        name for name in names if chain_started(name) is not None and _is_locked(folder / LIVE_NAME / name)
    )


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(descriptor)
    except OSError:
        return True
    finally:
        os.close(descriptor)
