"""A cache of authenticated callers: one hash of the credential instead of three hashes and two records.

An entry has the leaves (records) that it was computed from and is used only while all of them are current, so
that a revocation reaches it with the record (I6). What depends on the time or on the client's address is
not cached; it is checked each time. Keys are stored here by their SHA-256 (I8).
"""

from __future__ import annotations

from operator import attrgetter
from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec

from gateway.model.bounded_memory import BoundedMemory

if TYPE_CHECKING:
    from gateway.model.access import Principal
    from gateway.model.facts import Key, Tenant
    from gateway.model.stamps import Stamp

MAX_BYTES = 16 << 20  # some 8,000 callers with the records that they depend on
KEY_BYTES = 600  # of a key that is in no record: a binding, as a token of an outside issuer is judged
REFUSED_BYTES = 4 << 20  # some 8,000 refused keys
ENTRY_BYTES = 500  # of one: its name, a stamp with two leaves; records are charged where they are held
CALLER_BYTES = 600  # of an entry with principal, stamp and cache key, without texts and records: measured


class Caller(msgspec.Struct, frozen=True, eq=False):
    """A key that was found, its tenant, its principal, and the stamp of the records read."""

    key: Key
    tenant: Tenant | None
    principal: Principal
    stamp: Stamp
    is_unbounded: bool = False  # valid at all times and for all clients, while its records are current


def is_unbounded(key: Key) -> bool:
    """Whether a key that is valid is so at all times and for all clients, while its record is current."""
    return key.not_before is None and key.expires_at is None and not key.networks


class RecentCallers(BoundedMemory[bytes, Caller]):
    """Callers by the SHA-256 of a key or token, or the name of a link. Only one still current is stored."""

    __slots__ = ()

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes=max_bytes, weigh=_held_bytes, stands_on=attrgetter("stamp.leaves"))


class Refused(msgspec.Struct, frozen=True, eq=False):
    """A key that was refused: its records, or None for an unknown one, and the stamp of what was read."""

    key: Key | None
    tenant: Tenant | None
    stamp: Stamp


class RefusedKeys(BoundedMemory[bytes, Refused]):
    """Refused keys by their SHA-256. Ever new unknown ones only displace others from it."""

    __slots__ = ()

    def __init__(self, *, max_bytes: int = REFUSED_BYTES) -> None:
        super().__init__(
            max_bytes=max_bytes,
            weigh=lambda _name, _refused: ENTRY_BYTES,
            stands_on=attrgetter("stamp.leaves"),
        )


def _held_bytes(name: bytes, caller: Caller) -> int:
    """The bytes held by this entry alone; key and tenant are charged with the records they came from."""
    principal = caller.principal
    texts = (principal.key_name, principal.token_id, principal.only)
    made = KEY_BYTES if principal.issuer is not None else 0
    held = sum([getsizeof(text) for text in texts if text is not None])
    return CALLER_BYTES + made + getsizeof(name) + held
