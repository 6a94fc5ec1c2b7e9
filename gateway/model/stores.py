"""Redis or Valkey as the rooms see it: small records, one global generation, and transactions of both.

`adapters/redis_store.py` implements it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A point in the history of the facts: which history, how many changes, and the mark of the last one.

    A mark is random and made by the commit of its generation. Two servers that took different changes
    may have the same history and counter; they never have the same mark.
    """

    history: str = ""  # empty: no fact was ever written
    generation: int = 0
    mark: str = ""  # empty: written before there were marks


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSize:
    """How many servers hold the facts and may take each other's place."""

    servers: int
    is_set: bool = False  # by an operator; else it was learned, and grows by itself


@dataclass(slots=True)
class Batch:
    """What one transaction writes: all of it or nothing, with one step of the global generation.

    `facts` are whole records; `set_*` and `hash_*` keep the sets and hashes by which people list them.
    """

    facts: dict[bytes, bytes | None] = field(default_factory=dict)  # None deletes
    seconds: dict[bytes, float] = field(default_factory=dict)  # how long such a record stays; else for ever
    set_add: list[tuple[bytes, bytes]] = field(default_factory=list)
    set_remove: list[tuple[bytes, bytes]] = field(default_factory=list)
    hash_put: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    hash_drop: list[tuple[bytes, bytes]] = field(default_factory=list)
    group: GroupSize | None = None  # how many servers replicate each other, where this transaction says so


class FactSnapshot(Protocol):
    """Facts as they are while a transaction is planned; the plan is retried when they move meanwhile."""

    @property
    def next_generation(self) -> int:
        """The generation that this transaction's records will carry."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""


class FactStore(Protocol):
    """Redis or Valkey, seen as a store of small records with one global generation.

    Every method raises `Unavailable` when the store does not answer; no other exception leaves it.
    """

    async def read(self, names: Sequence[bytes]) -> tuple[Moment, list[bytes | None]]:
        """The moment, and the values that these names had at it, in one round trip."""

    def move(self) -> None:
        """Use no connection any more that is open now: the server may have been replaced by another."""

    async def generation(self) -> int:
        """The global generation."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""

    async def put_hash(self, name: bytes, values: dict[bytes, bytes]) -> None:
        """Write hash fields outside of any transaction: for hints such as "last used", never for facts."""

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[None]]) -> Moment:
        """Run `plan` and commit what it put into the batch; returns the moment after it.

        An empty batch commits nothing and returns the moment as it is. Raises `UnknownHistory` where the
        server's history is not the one that this node knew.
        """

    async def hold_by_all(self, about: Moment) -> None:
        """Raises `NotHeld` unless every server that may be promoted has this commit."""

    async def close(self) -> None:
        """Let go of the connections."""
