"""Callers who were valid lately: found by one hash of what they sent, instead of three and two records.

A caller is remembered with the leaves that it was found by and is used only while all of them are
current, so a revocation reaches it with the record (I6). What depends on the time or on the client's
address is not remembered; it is judged each time. Keys stand here by their SHA-256 (I8).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.access import Principal
    from gateway.model.facts import Key, Stamp, Tenant


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """A key that was found, whose it is, and what that stands on."""

    key: Key
    tenant: Tenant | None
    principal: Principal
    stamp: Stamp


class RecentCallers:
    """Bounded; whoever was not seen for longest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._callers: OrderedDict[bytes, Caller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def find(self, sha256_of_key: bytes) -> Caller | None:
        """The caller, if nothing that it stands on has moved."""
        caller = self._callers.get(sha256_of_key)
        if caller is None:
            return None
        if not caller.stamp.is_current:
            del self._callers[sha256_of_key]
            return None
        self._callers.move_to_end(sha256_of_key)
        return caller

    def put(self, sha256_of_key: bytes, caller: Caller) -> None:
        """Remember a caller. One that was overtaken meanwhile is found out by its stamp."""
        self._callers[sha256_of_key] = caller
        if len(self._callers) > self._limit:
            self._callers.popitem(last=False)
