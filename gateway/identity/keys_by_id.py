"""Find a key by its id, for what names a key and does not contain it: signed links and access tokens.

A record is stored under a digest of the key. An index leads from id to digest. It is not part of the facts,
its changes are not pushed to workers, and it decides nothing: the record found through it has to have the
same id. So its entries may be remembered, and are looked up again when they lead to no such record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Reason, Refusal

if TYPE_CHECKING:
    from gateway.model.facts import Key, Tenant
    from gateway.model.names import KeyId
    from gateway.model.ports import KeyDirectory
    from gateway.model.stamps import Stamp

DIGESTS_BYTES = 4 << 20  # some 10,000 remembered index entries
DIGEST_BYTES = 120  # of an entry: a key id and a digest


class KeysById:
    """The keys of the directory, by id."""

    __slots__ = ("_digests", "_directory")

    def __init__(self, directory: KeyDirectory) -> None:
        self._directory = directory
        self._digests: BoundedMemory[KeyId, bytes] = BoundedMemory(
            max_bytes=DIGESTS_BYTES, weigh=lambda _key_id, _digest: DIGEST_BYTES
        )

    async def find(self, key_id: KeyId) -> tuple[bytes, Key, Tenant | None, Stamp]:
        """The digest of its record, the record, its tenant, and the stamp. Raises `Refusal(UNKNOWN_KEY)`."""
        for find_digest in (self._remembered, self._directory.find_key_digest):
            digest = await find_digest(key_id)
            if digest is None:
                continue
            key, tenant, stamp = await self._directory.find_key([digest])
            if key is not None and key.key_id == key_id:
                self._digests.put(key_id, digest)
                return digest, key, tenant, stamp
        raise Refusal(Reason.UNKNOWN_KEY, key_id=key_id)

    async def _remembered(self, key_id: KeyId) -> bytes | None:
        return self._digests.find(key_id)
