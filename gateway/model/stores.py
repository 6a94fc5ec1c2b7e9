"""The interface of the fact store (Redis or Valkey): small records, one global generation, transactions.

`adapters/redis_store.py` implements it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")


class Moment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A point in the history of the facts: which history, how many changes, and the mark of the last one.

    A mark is random and made by the commit of its generation. Two servers that took different changes
    may have the same history and counter; they never have the same mark.
    """

    history: str = ""  # empty: no fact was ever written
    generation: int = 0
    mark: str = ""  # empty: written before there were marks


class GroupSize(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The number of servers that hold the facts and may be promoted."""

    servers: int
    is_set: bool = False  # by an operator; otherwise it was discovered, and grows automatically


@dataclass(slots=True)
class Batch:
    """The writes of one transaction: all or nothing, with one increment of the global generation.

    `facts` are whole records; `set_*` and `hash_*` maintain the sets and hashes used to list them.
    """

    facts: dict[bytes, bytes | None] = field(default_factory=dict)  # None deletes
    seconds: dict[bytes, float] = field(default_factory=dict)  # time to live of a record; without: none
    set_add: list[tuple[bytes, bytes]] = field(default_factory=list)
    set_remove: list[tuple[bytes, bytes]] = field(default_factory=list)
    hash_put: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    hash_drop: list[tuple[bytes, bytes]] = field(default_factory=list)
    group: GroupSize | None = None  # the size of the replication group, where this transaction sets it


class FactSnapshot(Protocol):
    """A snapshot of the facts while a transaction is planned; if they change, the plan is retried."""

    @property
    def next_generation(self) -> int:
        """The generation that this transaction's records will have."""

    async def read(self, names: Sequence[bytes]) -> list[bytes | None]:
        """The values of these names, in order."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""


class FactStore(Protocol):
    """Redis or Valkey as a store of small records with one global generation.

    Every method raises `Unavailable` when the store does not answer, and no exception of the client library.
    """

    async def read(self, names: Sequence[bytes]) -> tuple[Moment, list[bytes | None]]:
        """The moment, and the values that these names had at it, in one round trip."""

    def move(self) -> None:
        """Stop using all connections that are open now: the server may have been replaced by another."""

    async def generation(self) -> int:
        """The global generation."""

    async def members(self, name: bytes) -> list[bytes]:
        """The members of a set, unordered."""

    async def hash_field(self, name: bytes, key: bytes) -> bytes | None:
        """One field of a hash."""

    async def hash_fields(self, name: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        """Several fields of a hash, in order."""

    async def put_hash(self, name: bytes, values: dict[bytes, bytes]) -> None:
        """Write hash fields outside any transaction: for hints such as "last used", never for facts."""

    async def transact(self, plan: Callable[[FactSnapshot, Batch], Awaitable[T]]) -> tuple[T, Moment]:
        """Run `plan` and commit what it put into the batch; returns its result and the moment after it.

        An empty batch commits nothing and returns the current moment. Raises `UnknownHistory` where the
        server's history is not the one that this node knew.
        """

    async def hold_by_all(self, about: Moment) -> None:
        """Raises `NotHeld` unless every server that may be promoted has this commit."""

    async def close(self) -> None:
        """Close the connections."""
