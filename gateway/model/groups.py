"""Quorums of a replication group: how many Redis servers must have a lease renewal or a revocation.

The group are the servers that hold the same facts, any of which may be promoted. A lease needs a majority, so
that two servers that do not know of each other never both grant one. A revocation needs all of them, since
any one may be promoted next. So the two always share a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.model.stores import Moment

SMALLEST_MAJORITY_GROUP = 3  # the majority of two servers is both: the loss of one would end all leases
MAX_GROUP = 16  # each further replica is one more server that every revocation waits for


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """An answered renewal: when it was sent, at which moment it was taken, and how many servers have it."""

    sent_at: float
    moment: Moment
    group: int
    held: int


def lease_quorum(group: int) -> int:
    """How many servers of a group must have a renewal for it to count."""
    return group // 2 + 1 if group >= SMALLEST_MAJORITY_GROUP else 1
