"""The follower: what a worker makes of what the feed tells it.

It keeps near cache and lease in step with the feed, and it knows the history of the facts. A server
whose history id is another one, or whose counter went back, was restored from a back-up or failed
over to a replica that lagged: revocations may be missing from it. It is treated as unreachable until
an operator accepts it (`cachegate directory accept`); the last seen pair is on disk, so that a
restart does not forget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.directory.lease import Lease
    from gateway.directory.near_facts import NearFacts


class HistoryMemory(Protocol):
    """The last seen history id and counter, on disk."""

    def accepts(self, history: str, generation: int) -> bool:
        """Whether this goes on where the last one was."""

    def note(self, history: str, generation: int) -> None:
        """Remember having seen this."""


class Follower:
    """The feed's listener."""

    def __init__(self, facts: NearFacts, lease: Lease, memory: HistoryMemory) -> None:
        self.is_history_known = True
        self._facts = facts
        self._lease = lease
        self._memory = memory

    @property
    def applied_generation(self) -> int:
        """What this worker acknowledges: nothing of a history that is not ours, which counts otherwise."""
        return self._lease.applied if self.is_history_known else 0

    def connected(self, generation: int, history: str) -> None:
        """A new feed: start with an empty memory, if these facts are the ones we knew."""
        if self._verify(history, generation):
            self._facts.connected(generation)

    def disconnected(self) -> None:
        """No feed: the lease runs out by itself."""
        self._facts.disconnected()

    def changed(self, names: Iterable[bytes] | None) -> None:
        """Forget these records; None: all."""
        self._facts.changed(names)

    def applied(self, generation: int) -> None:
        """All changes up to here have been told, and applied as they were."""
        self._lease.apply(generation)

    def renewed(self, sent_at: float, generation: int, history: str) -> None:
        """Count a renewal, once its generation is applied here."""
        was_known = self.is_history_known
        if self._verify(history, generation):
            if not was_known:
                # Accepted meanwhile. What was applied was counted in another history: a new beginning.
                self._facts.connected(generation)
            self._lease.renewed(sent_at=sent_at, generation=generation)
            self._memory.note(history, generation)

    def _verify(self, history: str, generation: int) -> bool:
        self.is_history_known = self._memory.accepts(history, generation)
        if not self.is_history_known:
            self._facts.disconnected()
            self._facts.changed(None)
            self._lease.drop()
        return self.is_history_known
