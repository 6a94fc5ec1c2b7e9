"""A bounded cache: values by key, with a limit on their number, on the bytes that they hold, or on both.

A value may have been computed from records that were read (`Leaf`). Once one of them is no longer current,
neither is the value: it is never found again, and is removed when it is asked for, or by `sweep`, which a
worker runs every few seconds (`assembly/upkeep.py`). Until then it is charged like any other.

Each value is charged the bytes that it keeps alive. A part that several values share, such as a record that
they depend on, is charged once, for as long as one of them holds it; its size is its `held_bytes`, read when
the first value takes it. When a limit is reached, the least recently used value is removed first.

For one thread. Non-goals: what a value means, and how it is made.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from gateway.model.stamps import Leaf

K = TypeVar("K")
V = TypeVar("V")

ENTRY_BYTES = 300  # overhead of one entry: measured, rounded up
PART_BYTES = 150  # overhead of one shared part: the same
STEP = 1_000  # values and parts that are counted or checked in one step: below a millisecond


class Part(Protocol):
    """An object that several values may share."""

    @property
    def held_bytes(self) -> int:
        """The bytes that it keeps alive by itself."""


def on_nothing(_value: object) -> tuple[Leaf, ...]:
    """The leaves of values that depend on no record."""
    return ()


def nothing(_value: object) -> tuple[Part, ...]:
    """No other parts."""
    return ()


class BoundedMemory(Generic[K, V]):
    """The cache of one kind of value."""

    __slots__ = (
        "_entries",
        "_is_over",
        "_max_bytes",
        "_max_entries",
        "_other_parts",
        "_stands_on",
        "_uses",
        "_weigh",
        "held_bytes",
        "hits",
    )

    def __init__(
        self,
        *,
        max_bytes: float = inf,
        weigh: Callable[[K, V], int] = lambda _key, _value: 0,
        max_entries: float = inf,
        stands_on: Callable[[V], tuple[Leaf, ...]] = on_nothing,
        other_parts: Callable[[V], Iterable[Part]] = nothing,
        is_over: Callable[[V], bool] | None = None,
    ) -> None:
        """`weigh` gives what a key and its value hold alone; `other_parts` must be the same each time.

        `is_over` becomes true, and stays so, for a value that has ended although all its leaves are current.
        """
        self.held_bytes = 0
        self.hits = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._weigh = weigh
        self._stands_on = stands_on
        self._other_parts = other_parts
        self._is_over = is_over
        # With each value: its leaves, and the bytes that it was charged alone.
        self._entries: OrderedDict[K, tuple[V, tuple[Leaf, ...], int]] = OrderedDict()
        self._uses: dict[int, tuple[int, int]] = {}  # by id of a part: how many values hold it, and its bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def find(self, key: K) -> V | None:
        """The value, if it is current; counts as a use."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, leaves, _ = entry
        for leaf in leaves:
            if not leaf.is_current:
                self.drop(key)
                return None
        if self._is_over is not None and self._is_over(value):
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return value

    def peek(self, key: K) -> V | None:
        """The value as it is stored. The caller checks whether it is current; does not count as a use."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V) -> None:
        """Store a value, unless it is not current (no late writer, I6) or larger than the whole cache."""
        for _ in self.putting(key, value):
            pass

    def putting(self, key: K, value: V) -> Iterator[None]:
        """As `put`, in steps, for values with many parts: the caller may yield between them."""
        leaves = self._stands_on(value)
        if not self._is_current(value, leaves):
            return
        own = ENTRY_BYTES + self._weigh(key, value)
        self.held_bytes += own
        whole = own + (yield from self._take(value, leaves))
        yield from self.dropping(key)
        if whole > self._max_bytes:  # it would evict all other values, and then itself
            self.held_bytes -= own
            yield from self._give_back(value, leaves)
            return
        self._entries[key] = value, leaves, own
        while self._has_to_drop():
            yield from self.dropping(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        """Remove a value."""
        for _ in self.dropping(key):
            pass

    def dropping(self, key: K) -> Iterator[None]:
        """As `drop`, in steps. From the first step on the value is not found."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        value, leaves, own = entry
        self.held_bytes -= own
        yield from self._give_back(value, leaves)

    def clear(self) -> None:
        """Remove all values: something that they depend on beside their leaves has changed."""
        for key in list(self._entries):
            self.drop(key)

    def sweep(self) -> Iterator[None]:
        """Remove the values that are no longer current, in steps."""
        looked_at = 0
        for key in list(self._entries):
            entry = self._entries.get(key)
            if entry is None:
                continue
            value, leaves, _ = entry
            looked_at += 1 + len(leaves)
            if not self._is_current(value, leaves):
                yield from self.dropping(key)
            if looked_at >= STEP:
                looked_at = 0
                yield

    def _is_current(self, value: V, leaves: tuple[Leaf, ...]) -> bool:
        is_over = self._is_over is not None and self._is_over(value)
        return not is_over and all(leaf.is_current for leaf in leaves)

    def _has_to_drop(self) -> bool:
        """Whether a value has to be evicted. Values being put are charged already, so none may be left."""
        if not self._entries:
            return False
        return self.held_bytes > self._max_bytes or len(self._entries) > self._max_entries

    def _take(self, value: V, leaves: tuple[Leaf, ...]) -> Generator[None, None, int]:
        """Count the parts of a value. Returns their bytes, shared with other values or not."""
        uses, whole = self._uses, 0
        for counted, part in enumerate(chain(leaves, self._other_parts(value)), 1):
            known = uses.get(id(part))
            if known is None:
                size = part.held_bytes + PART_BYTES
                self.held_bytes += size
                uses[id(part)] = 1, size
            else:
                size = known[1]
                uses[id(part)] = known[0] + 1, size
            whole += size
            if counted % STEP == 0:
                yield
        return whole

    def _give_back(self, value: V, leaves: tuple[Leaf, ...]) -> Iterator[None]:
        uses = self._uses
        for counted, part in enumerate(chain(leaves, self._other_parts(value)), 1):
            count, size = uses[id(part)]
            if count > 1:
                uses[id(part)] = count - 1, size
            else:
                del uses[id(part)]
                self.held_bytes -= size
            if counted % STEP == 0:
                yield
