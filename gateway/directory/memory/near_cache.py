"""The near cache: the fact records that this worker keeps in memory, and their invalidation.

A cached record is a `Leaf`. Answers reference the leaves they were computed from, so one assignment,
`is_current = False`, invalidates every answer that depends on the record, whether cached or on its way to a
client. A leaf that is evicted for space is invalidated too, since later changes could not reach it.

A record is inserted only if it did not change while it was read. A reader first opens a `PendingRead`; an
invalidation that arrives before the reply marks it, and the overtaken reply is returned as a leaf that is not
current. So no late reply can restore an old record, in whatever order two connections deliver.

Names are the Redis names, which are injective by construction. Non-goals: when the worker may trust its
memory (`lease.py`), and reading (`near_facts.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.model.stamps import Account, Leaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ENTRY_BYTES = 120  # of the table, per leaf: measured, rounded up


@dataclass(slots=True)
class CacheCounts:
    """Counters for the metrics."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    invalidations: int = 0
    flushes: int = 0
    overtaken: int = 0


@dataclass(slots=True, eq=False)
class PendingRead:
    """A read in progress: its names, and those that changed meanwhile."""

    names: frozenset[bytes]
    epoch: int
    overtaken: set[bytes] = field(default_factory=set)


class NearCache:
    """Bounded by entries and bytes; evicts the least recently used. For one event loop."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self.counts = CacheCounts()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._leaves: OrderedDict[bytes, Leaf] = OrderedDict()
        self._account = Account()  # a leaf that is decoded later holds more, and adds it here
        self._epoch = 0
        self._reads: set[PendingRead] = set()

    def __len__(self) -> int:
        return len(self._leaves)

    @property
    def held_bytes(self) -> int:
        """The bytes that it holds, as accounted."""
        return self._account.held_bytes

    def find(self, name: bytes) -> Leaf | None:
        """Return the cached record, or the cached absence of one."""
        leaf = self._leaves.get(name)
        if leaf is None:
            self.counts.misses += 1
            return None
        self._leaves.move_to_end(name)
        self.counts.hits += 1
        return leaf

    def begin_read(self, names: Sequence[bytes]) -> PendingRead:
        """Begin a read of these names. `finish_read` or `abort_read` ends it."""
        pending = PendingRead(names=frozenset(names), epoch=self._epoch)
        self._reads.add(pending)
        return pending

    def finish_read(self, pending: PendingRead, values: Mapping[bytes, bytes | None]) -> dict[bytes, Leaf]:
        """Cache what was read; return records that changed meanwhile as leaves that are not current."""
        self._reads.discard(pending)
        read: dict[bytes, Leaf] = {}
        for name, value in values.items():
            if pending.epoch != self._epoch or name in pending.overtaken:
                self.counts.overtaken += 1
                read[name] = Leaf(name, value, is_current=False)
                continue
            known = self._leaves.get(name)
            if known is not None and known.value == value:
                read[name] = known  # answers that depend on it stay valid
                continue
            read[name] = Leaf(name, value)
            self._put(read[name])
        return read

    def is_overtaken(self, pending: PendingRead) -> bool:
        """Whether everything was flushed since the read began, so that nothing of it is cached."""
        return pending.epoch != self._epoch

    def abort_read(self, pending: PendingRead) -> None:
        """End a read that failed."""
        self._reads.discard(pending)

    def invalidate(self, names: Iterable[bytes]) -> None:
        """These records changed."""
        for name in names:
            self.counts.invalidations += 1
            leaf = self._leaves.pop(name, None)
            if leaf is not None:
                self._forget(leaf)
            for pending in self._reads:
                if name in pending.names:
                    pending.overtaken.add(name)

    def flush(self) -> None:
        """Forget all records, including those being read."""
        self.counts.flushes += 1
        self._epoch += 1
        for leaf in self._leaves.values():
            self._forget(leaf)
        self._leaves.clear()

    def _put(self, leaf: Leaf) -> None:
        former = self._leaves.pop(leaf.name, None)
        if former is not None:  # two reads of one name: both read the same value, the later one stays
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
