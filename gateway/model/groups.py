"""Groups: the servers that hold the same facts and may take each other's place, and how many must have what.

A lease needs most of them, so that two servers that do not know of each other never both give one. A
revocation needs all of them, since any one may be promoted next. So the two always share a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.stores import Moment

SMALLEST_MAJORITY_GROUP = 3  # of two servers, most are both: one that is gone would end all leases
MAX_GROUP = 16  # a replica more is a machine more that every revocation waits for


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A renewal that was answered: when it was sent, at which moment it was taken, by how many of them."""

    sent_at: float
    moment: Moment
    group: int
    held: int


def lease_quorum(group: int) -> int:
    """How many servers of a group must have a renewal for it to count."""
    return group // 2 + 1 if group >= SMALLEST_MAJORITY_GROUP else 1
