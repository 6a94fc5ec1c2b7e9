"""Callers who were valid lately: found by one hash of what they sent, instead of three and two records.

A caller is remembered with the leaves that it was found by and is used only while all of them are
current, so a revocation reaches it with the record (I6). What depends on the time or on the client's
address is not remembered; it is judged each time. Keys stand here by their SHA-256 (I8).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

from gateway.model.bounded_memory import BoundedMemory

if TYPE_CHECKING:
    from gateway.model.access import Principal
    from gateway.model.facts import Key, Stamp, Tenant

MAX_BYTES = 16 << 20  # some 8,000 callers with the records that they stand on
CALLER_BYTES = 600  # with its principal, stamp and key, beside texts and records: measured, rounded up


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A key that was found, whose it is, and what that stands on."""

    key: Key
    tenant: Tenant | None
    principal: Principal
    stamp: Stamp


class RecentCallers(BoundedMemory[bytes, Caller]):
    """By the SHA-256 of a key, or the name of a link. One that was overtaken meanwhile is not kept."""

    __slots__ = ()

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes=max_bytes, weigh=_held_bytes, stands_on=attrgetter("stamp.leaves"))


def _held_bytes(name: bytes, caller: Caller) -> int:
    """What a caller holds alone; the key and the tenant are in the records that it stands on."""
    return CALLER_BYTES + getsizeof(name) + getsizeof(caller.principal.key_name)
