"""What a listing reads from: a snapshot within a transaction, or a live store outside of any.

Both can give values, members of sets and fields of hashes; neither knows what is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.ports import FactStore


class Reading(Protocol):
    """What a listing reads from: a snapshot, or a store seen through `StoreReading`."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""


class StoreReading:
    """A live store, read outside of any transaction."""

    def __init__(self, store: FactStore) -> None:
        self._store = store

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""
        _, values = await self._store.read(names)
        return values

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""
        return await self._store.members(name)

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""
        return await self._store.hash_fields(name, keys)
