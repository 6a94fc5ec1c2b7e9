"""A fact source without a cache, for commands, which run briefly and serve no client.

Every read goes to the store, and changes after a read are not noticed. So nothing that is decided on these
facts may release a byte: `holds` is always false.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from gateway.model.stamps import Leaf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.model.stamps import Stamp
    from gateway.model.stores import FactStore


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
