"""Fact sources without a cache: the store itself, for commands, and the snapshot within a transaction.

Every read goes to the server, and changes after a read are not noticed. So nothing that is decided on these
facts may release a byte: `holds` is always false.

Beside records by name, these sources have what readers of whole kinds need: sets and hashes.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from gateway.model.stamps import Leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.stamps import Stamp
    from gateway.model.stores import Batch, FactSnapshot, FactStore


class PlainFacts:
    """`FactSource` over the store itself."""

    def __init__(self, store: FactStore) -> None:
        self._store = store
        self._epochs = count()

    @property
    def epoch(self) -> int:
        """Another number each time: changes are not followed here."""
        return next(self._epochs)

    async def read(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """Return a leaf for each name, in order, from the store."""
        moment, values = await self._store.read(names)
        return moment.generation, [Leaf(name, value) for name, value in zip(names, values, strict=True)]

    async def members(self, name: bytes) -> list[bytes]:
        """Return the members of a set, unordered."""
        return await self._store.members(name)

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return several fields of a hash, in order."""
        return await self._store.hash_fields(name, keys)

    async def read_afresh(self, names: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """The same as `read`."""
        return await self.read(names)

    def find(self, names: Sequence[bytes]) -> list[Leaf] | None:
        """Return None: nothing is cached."""
        return None if names else []

    def is_leased(self) -> bool:
        """A command holds no lease."""
        return False

    def is_fresh(self, _degraded_seconds: float) -> bool:
        """What was just read is fresh."""
        return True

    def verify_fresh(self, _degraded_seconds: float) -> None:
        """What was just read is fresh."""

    def holds(self, _stamp: Stamp, _degraded_seconds: float) -> bool:
        """A command is not notified of changes."""
        return False


class PendingFacts(PlainFacts):
    """The facts within a transaction, its own pending writes included."""

    def __init__(self, snapshot: FactSnapshot, batch: Batch) -> None:
        self._snapshot = snapshot
        self._batch = batch

    async def read(self, wanted: Sequence[bytes]) -> tuple[int, list[Leaf]]:
        """Return a leaf for each name, in order, as it will be after the transaction."""
        facts = self._batch.facts
        missing = [name for name in wanted if name not in facts]
        found = dict(zip(missing, await self._snapshot.read(missing), strict=True)) if missing else {}
        leaves = [Leaf(name, facts[name] if name in facts else found[name]) for name in wanted]
        return self._snapshot.next_generation, leaves

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
