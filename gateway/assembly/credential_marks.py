"""Credential marks: find out which API key an entry of the engine's own cache belongs to.

The engine names the key of a cache entry by an unsalted hash. Redis holds that hash only keyed with our
peppers (I8): an operator can ask which entries a revoked key has left behind, and someone who reads Redis
cannot test guesses. This module combines the peppers with the engine's hash function.

A key that was imported by its SHA-256 has no mark before its first use: its secret is unknown until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.reading.key_usage import find_marked_keys, note_credential_marks
from gateway.engine.credential_hash import credential_hash, keyed_credential_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.engine.credential_hash import CredentialHash
    from gateway.identity.pepper import Peppers
    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore


def marker(peppers: Peppers) -> Callable[[str], bytes]:
    """A function that makes the mark of a key, under the current pepper."""

    def mark_of(secret: str) -> bytes:
        return keyed_credential_hash(credential_hash(secret), peppers.current.secret)

    return mark_of


async def note_mark(store: FactStore, peppers: Peppers, key_id: KeyId, secret: str | None) -> None:
    """Store the mark of a new key, if its secret is known. A lost mark is stored at the key's next use."""
    if secret is not None:
        await note_credential_marks(store, {key_id: marker(peppers)(secret)})


async def find_keys(
    store: FactStore, peppers: Peppers, hashes: Iterable[CredentialHash]
) -> dict[CredentialHash, KeyId]:
    """Which of our keys these hashes of the engine belong to, where a mark is known."""
    owners = {
        keyed_credential_hash(one, pepper.secret): one
        for one in set(hashes)
        for pepper in (peppers.current, *peppers.previous)
    }
    found = await find_marked_keys(store, owners)
    return {owners[mark]: key_id for mark, key_id in found.items()}
