"""Stamps: the records that an answer was computed from, and whether all of them are still current."""

from __future__ import annotations

import msgspec

LEAF_BYTES = 180  # of a leaf and the headers of its two byte strings: measured, rounded up


class Account:
    """The sum of the bytes held by the leaves of one memory."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


class Leaf:
    """One record as it was read, or its absence: an input of an answer.

    `is_current` becomes false, and stays so, the moment the record is known to have changed, or can no
    longer be known not to have. Only the near cache sets it; all others read it.

    The fact in it is decoded once, for all readers of this leaf, and is charged to the memory that holds the
    leaf: a fact may be many times as large as its record.
    """

    __slots__ = ("account", "decoded", "held_bytes", "is_current", "name", "value", "within")

    ends_by_time = False  # whether it can stop being current without a change of facts

    def __init__(self, name: bytes, value: bytes | None, *, is_current: bool = True) -> None:
        self.name = name
        self.value = value
        self.is_current = is_current
        self.decoded: object = None
        self.within: object = None  # what it says in the present period, where that depends on the time
        self.held_bytes = LEAF_BYTES + len(name) + (len(value) if value is not None else 0)
        self.account: Account | None = None  # of the memory that holds the leaf, while it does

    def keep(self, decoded: object, held_bytes: int) -> None:
        """Keep the decoded fact, which holds so many bytes."""
        self.decoded = decoded
        self.held_bytes += held_bytes
        if self.account is not None:
            self.account.held_bytes += held_bytes


class Stamp(msgspec.Struct, frozen=True, eq=False):
    """The inputs of an answer: all records that were read for it, absent ones included.

    `generation` is the global one up to which every change had been applied when they were read.
    """

    generation: int
    leaves: tuple[Leaf, ...]

    @property
    def is_current(self) -> bool:
        """Whether none of the records has changed since it was read."""
        for leaf in self.leaves:  # a plain loop: this is the last check before every first byte  # noqa: SIM110
            if not leaf.is_current:
                return False
        return True

    def joined(self, other: Stamp) -> Stamp:
        """Both combined, with the older generation."""
        return Stamp(min(self.generation, other.generation), self.leaves + other.leaves)
