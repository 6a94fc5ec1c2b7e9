"""The sources that a `Listing` can read from: a live store, or the snapshot within a transaction.

Within a transaction, its own pending writes are included. All sources return values, and where supported
members of sets and fields of hashes; none interprets them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_alias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.names import ModelId
    from gateway.model.ports import FactSource
    from gateway.model.stores import Batch, FactSnapshot, FactStore


class Records(Protocol):
    """A reader of records by name."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of these names, in order."""


class Reading(Records, Protocol):
    """What a listing reads from: a snapshot, or a store through `StoreReading`."""

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return several fields of a hash, in order."""


class StoreReading:
    """A live store, read without a transaction."""

    def __init__(self, store: FactStore) -> None:
        self._store = store

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of these names, in order."""
        _, values = await self._store.read(names)
        return values

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""
        return await self._store.members(name)

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return several fields of a hash, in order."""
        return await self._store.hash_fields(name, keys)


class SourceReading:
    """A worker's fact source: records by name, without indexes."""

    def __init__(self, source: FactSource) -> None:
        self._source = source

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of these names, in order."""
        _, leaves = await self._source.read(names)
        return [leaf.value for leaf in leaves]


class PendingReading:
    """A snapshot that includes the pending writes of its transaction."""

    def __init__(self, snapshot: FactSnapshot, batch: Batch) -> None:
        self._snapshot = snapshot
        self._batch = batch

    async def read(self, wanted: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of these names, in order."""
        facts = self._batch.facts
        missing = [name for name in wanted if name not in facts]
        found = dict(zip(missing, await self._snapshot.read(missing), strict=True)) if missing else {}
        return [facts[name] if name in facts else found[name] for name in wanted]

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""
        members = set(await self._snapshot.members(name))
        members.difference_update(member for index, member in self._batch.set_remove if index == name)
        members.update(member for index, member in self._batch.set_add if index == name)
        return list(members)

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return several fields of a hash, in order."""
        pending: dict[bytes, bytes | None] = {
            field: value for index, field, value in self._batch.hash_put if index == name
        }
        pending.update((field, None) for index, field in self._batch.hash_drop if index == name)
        return [
            pending[key] if key in pending else await self._snapshot.hash_field(name, key) for key in keys
        ]


async def find_canonical(reading: SourceReading, model: ModelId) -> ModelId:
    """Resolve an alias to its model id. If the record is unreadable, return the name: it will be denied."""
    [raw_alias] = await reading.read([names.alias_fact(model)])
    try:
        return model if raw_alias is None else decode_alias(raw_alias, model).canonical
    except UnreadableRecordError:
        return model
