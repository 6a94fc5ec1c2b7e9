"""The near cache: the records that this worker remembers, and how it forgets them.

A remembered record is a `Leaf`. Answers hold on to the leaves they stand on, so forgetting is one
assignment: `is_current = False` reaches every answer that was computed from it, remembered or still
on its way to a client. A leaf that is evicted for space is turned as well, since nobody would turn
it later.

A record is put in only if it did not move while it was read. Whoever reads opens a `Flight` first;
an invalidation that arrives before the reply marks it, and a reply that was overtaken is handed out
as a leaf that is not current. So no late reply can put an old record back, whatever the order in
which two connections are heard.

Keys are the Redis names, which are injective by construction. Non-goals: when the worker may trust
what it remembers (`lease.py`), and reading (`near_facts.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.model.facts import Account, Leaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENTRY_BYTES = 120  # of the table, for one leaf: measured, rounded up


@dataclass(slots=True)
class CacheCounts:
    """What happened so far, for the metrics."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    invalidations: int = 0
    flushes: int = 0
    overtaken: int = 0


@dataclass(slots=True, eq=False)
class Flight:
    """A read under way: which names, and which of them moved meanwhile."""

    names: frozenset[bytes]
    epoch: int
    spoiled: set[bytes] = field(default_factory=set)


class NearCache:
    """Bounded by entries and by bytes; the least recently used goes first. For one event loop."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self.counts = CacheCounts()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._leaves: OrderedDict[bytes, Leaf] = OrderedDict()
        self._account = Account()  # a leaf that is decoded holds more from then on, and says so here
        self._epoch = 0
        self._flights: set[Flight] = set()

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def held_bytes(self) -> int:
        """What it holds, by its own account."""
        return self._account.held_bytes

    def find(self, name: bytes) -> Leaf | None:
        """The remembered record, or the remembered absence of one."""
        leaf = self._leaves.get(name)
        if leaf is None:
            self.counts.misses += 1
            return None
        self._leaves.move_to_end(name)
        self.counts.hits += 1
        return leaf

    def depart(self, names: Sequence[bytes]) -> Flight:
        """Note that these names are about to be read. `land` or `crash` ends it."""
        flight = Flight(names=frozenset(names), epoch=self._epoch)
        self._flights.add(flight)
        return flight

    def land(self, flight: Flight, values: Mapping[bytes, bytes | None]) -> dict[bytes, Leaf]:
        """Remember what was read, except what moved meanwhile: that is handed out as no longer current."""
        self._flights.discard(flight)
        landed: dict[bytes, Leaf] = {}
        for name, value in values.items():
            if flight.epoch != self._epoch or name in flight.spoiled:
                self.counts.overtaken += 1
                landed[name] = Leaf(name, value, is_current=False)
                continue
            known = self._leaves.get(name)
            if known is not None and known.value == value:
                landed[name] = known  # whoever stands on it goes on standing
                continue
            landed[name] = Leaf(name, value)
            self._put(landed[name])
        return landed

    def is_overtaken(self, flight: Flight) -> bool:
        """Whether everything has been forgotten since it departed, so that nothing of it is remembered."""
        return flight.epoch != self._epoch

    def crash(self, flight: Flight) -> None:
        """The read failed: there is nothing to remember."""
        self._flights.discard(flight)

    def invalidate(self, names: Iterable[bytes]) -> None:
        """These records changed."""
        for name in names:
            self.counts.invalidations += 1
            leaf = self._leaves.pop(name, None)
            if leaf is not None:
                self._forget(leaf)
            for flight in self._flights:
                if name in flight.names:
                    flight.spoiled.add(name)

    def flush(self) -> None:
        """Nothing is known any more: forget everything, and everything that is on its way."""
        self.counts.flushes += 1
        self._epoch += 1
        for leaf in self._leaves.values():
            self._forget(leaf)
        self._leaves.clear()

    def _put(self, leaf: Leaf) -> None:
        former = self._leaves.pop(leaf.name, None)
        if former is not None:  # two flights for one name: both read the same, and the later one stays
            self._forget(former)
        self._leaves[leaf.name] = leaf
        leaf.account = self._account
        self._account.held_bytes += ENTRY_BYTES + leaf.held_bytes
        while len(self._leaves) > self._max_entries or self._account.held_bytes > self._max_bytes:
            _, oldest = self._leaves.popitem(last=False)
            self._forget(oldest)
            self.counts.evictions += 1

    def _forget(self, leaf: Leaf) -> None:
        leaf.is_current = False
        leaf.account = None
        self._account.held_bytes -= ENTRY_BYTES + leaf.held_bytes
