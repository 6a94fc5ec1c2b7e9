"""Applies the events of the Redis feed to a worker's near cache and lease, and checks the history.

A server that does not have the moment noted by this node in its past was restored from a back-up, or failed
over to a lagging replica: revocations may be missing. It is treated as unreachable until an operator accepts
it (`cachegate directory accept`). The note is on disk, so it survives a restart.

Each renewal has two thresholds. It extends the lease only if a majority of the replication group has it
(`lease_quorum`), so that two servers that do not know of each other cannot both give leases. A moment that
every server of the group has is noted, and only noted moments are acknowledged. So a revocation that all
workers have acknowledged is in the note of each of their nodes, and these nodes never accept a server without
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.model.groups import lease_quorum
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.memory.lease import Lease
    from gateway.directory.memory.near_facts import NearFacts
    from gateway.model.groups import Renewal


class HistoryMemory(Protocol):
    """The newest moment that this node is sure of, on disk."""

    def known(self) -> Moment | None:
        """The noted moment, or None if there is none."""

    def reload(self) -> Moment | None:
        """The same, read from disk again: another process, or an operator, may have written it."""

    def note(self, moment: Moment) -> bool:
        """Note this moment. Returns whether it, or a later one of the same history, is noted now."""


class Follower:
    """The feed's listener."""

    def __init__(self, facts: NearFacts, lease: Lease, memory: HistoryMemory) -> None:
        self.is_history_known = True
        self.acknowledged = 0  # what renewals acknowledge: applied here, held by all servers, and noted
        self._facts = facts
        self._lease = lease
        self._memory = memory
        self._group = 1
        self._held = Moment()  # the newest moment that all servers are known to have

    @property
    def note(self) -> Moment | None:
        """The moment that a server must have in its past."""
        return self._memory.known()

    @property
    def is_behind(self) -> bool:
        """Whether something was applied that cannot be acknowledged yet: not held by all, or not noted."""
        return self._lease.applied > self.acknowledged

    def connected(self, moment: Moment, group: int) -> None:
        """A new feed connects to a server with the known history: start with an empty memory."""
        self.is_history_known = True
        self.acknowledged = 0
        self._group = group
        self._held = Moment()
        self._facts.connected(moment)

    def refused(self) -> None:
        """The server does not have the noted moment in its past. Reload the note for the next attempt."""
        self.is_history_known = False
        self.acknowledged = 0
        self._facts.disconnected(is_history_known=False)
        self._facts.changed(None)
        self._lease.drop()
        self._memory.reload()

    def disconnected(self) -> None:
        """The feed is disconnected; the lease expires by itself."""
        self._facts.disconnected(is_history_known=self.is_history_known)

    def changed(self, names: Iterable[bytes] | None) -> None:
        """Forget these records; None: all."""
        self._facts.changed(names)

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """These generations, with their marks, were received in order and are applied."""
        self._facts.applied(steps)
        if self._group == 1:  # a single server has every generation that it reports
            self._held = self._facts.moment
        self._acknowledge()

    def renewed(self, renewal: Renewal) -> None:
        """Count a renewal, once its generation is applied here."""
        self._group = renewal.group
        if renewal.held >= lease_quorum(renewal.group):
            self._lease.renewed(sent_at=renewal.sent_at, generation=renewal.moment.generation)
        if renewal.held >= renewal.group and renewal.moment.generation >= self._held.generation:
            self._held = renewal.moment
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Note the moment that is applied here and held by all, then acknowledge it, in this order."""
        held = self._held
        if self.acknowledged < held.generation <= self._lease.applied and self._memory.note(held):
            self.acknowledged = held.generation
