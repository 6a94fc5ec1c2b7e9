"""Marks: how an entry of the engine's own cache is found to be a certain key's.

The engine names the key of an entry by an unsalted hash. We keep that hash under our peppers only
(I8), so that an operator can ask which entries a revoked key has left behind, and whoever reads Redis
cannot test guesses. This is where the peppers and the engine's way of hashing are introduced to each
other.

A key that was imported by its SHA-256 has no mark before it is first used: nobody knew it until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.directory.key_usage import find_marked_keys, note_credential_marks
from gateway.engine.credential_hash import credential_hash, keyed_credential_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.engine.credential_hash import CredentialHash
    from gateway.identity.pepper import Peppers
    from gateway.model.names import KeyId
    from gateway.model.stores import FactStore


def marker(peppers: Peppers) -> Callable[[str], bytes]:
    """What makes the mark of a key, under the current pepper."""

    def mark_of(secret: str) -> bytes:
        return keyed_credential_hash(credential_hash(secret), peppers.current.secret)

    return mark_of


async def note_mark(store: FactStore, peppers: Peppers, key_id: KeyId, secret: str | None) -> None:
    """Note the mark of a key that was just made, if it is at hand. A lost one comes with the first use."""
    if secret is not None:
        await note_credential_marks(store, {key_id: marker(peppers)(secret)})


async def find_keys(
    store: FactStore, peppers: Peppers, hashes: Iterable[CredentialHash]
) -> dict[CredentialHash, KeyId]:
    """Which of our keys these hashes of the engine stand for, as far as they are known."""
    owners = {
        keyed_credential_hash(one, pepper.secret): one
        for one in set(hashes)
        for pepper in (peppers.current, *peppers.previous)
    }
    found = await find_marked_keys(store, owners)
    return {owners[mark]: key_id for mark, key_id in found.items()}
