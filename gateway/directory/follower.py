"""The follower: what a worker makes of what the feed tells it.

It keeps near cache and lease in step with the feed, and it knows the history of the facts. A server that
has not in its past what this node noted was restored from a back-up, or failed over to a replica that
lagged: revocations may be missing from it. It is treated as unreachable until an operator accepts it
(`cachegate directory accept`); the note is on disk, so that a restart does not forget.

Two counts decide over a renewal. It extends the lease only if most of the group has it (`lease_quorum`),
so that no two servers that do not know of each other both give leases. What every server of the group has
is noted, and only what is noted is acknowledged. So a revocation that all workers have acknowledged is in
the note of each of their nodes, and no server without it is ever taken there again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.model.groups import lease_quorum
from gateway.model.stores import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.directory.lease import Lease
    from gateway.directory.near_facts import NearFacts
    from gateway.model.groups import Renewal


class HistoryMemory(Protocol):
    """The newest moment that this node is sure of, on disk."""

    def known(self) -> Moment | None:
        """What is noted; None where nothing ever was."""

    def reload(self) -> Moment | None:
        """The same from disk: another process, or an operator, may have written it."""

    def note(self, moment: Moment) -> bool:
        """Note this moment; whether it, or a later one of the same history, is noted now."""


class Follower:
    """The feed's listener."""

    def __init__(self, facts: NearFacts, lease: Lease, memory: HistoryMemory) -> None:
        self.is_history_known = True
        self.acknowledged = 0  # what a renewal says: applied here, held by all, and noted
        self._facts = facts
        self._lease = lease
        self._memory = memory
        self._group = 1
        self._held = Moment()  # the newest moment that all servers are known to have

    @property
    def note(self) -> Moment | None:
        """What a server must have in its past."""
        return self._memory.known()

    def connected(self, moment: Moment, group: int) -> None:
        """A new feed to a server whose history is the one: start with an empty memory."""
        self.is_history_known = True
        self.acknowledged = 0
        self._group = group
        self._held = Moment()
        self._facts.connected(moment)

    def refused(self) -> None:
        """The server has not in its past what this node noted. The note is read anew for the next try."""
        self.is_history_known = False
        self.acknowledged = 0
        self._facts.disconnected(is_history_known=False)
        self._facts.changed(None)
        self._lease.drop()
        self._memory.reload()

    def disconnected(self) -> None:
        """No feed: the lease runs out by itself."""
        self._facts.disconnected(is_history_known=self.is_history_known)

    def changed(self, names: Iterable[bytes] | None) -> None:
        """Forget these records; None: all."""
        self._facts.changed(names)

    def applied(self, steps: Sequence[tuple[int, str]]) -> None:
        """These generations, with their marks, have been told in order, and applied as they were."""
        self._facts.applied(steps)
        if self._group == 1:  # the one server that there is has what it tells
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
        """Note what is applied here and held by all, then acknowledge it: in this order."""
        held = self._held
        if self.acknowledged < held.generation <= self._lease.applied and self._memory.note(held):
            self.acknowledged = held.generation
