"""What a record can be found by: numbers for its names, and for the ids that it has or belongs to.

A name (a tenant, a key, a model, a decision, a reason) stands in the index as 64 bits of a hash. Two names
with the same hash cost a comparison and nothing else: each record that is found is compared with the query
itself. An id is random already, so its last 48 bits stand for it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gateway.audit.events import Query

_REMEMBERED = 1 << 16
_ID_CHARACTERS = 36


class _IndexedResource(msgspec.Struct, gc=False):
    model: str | None = None
    requested: str | None = None


class IndexedFields(msgspec.Struct, gc=False):
    """The fields of a record, of any kind, by which it can be found."""

    kind: str
    seq: int
    time: str
    id: str
    tenant: str | None = None
    tenant_record: str | None = None
    key_id: str | None = None
    claimed_key_id: str | None = None
    decision: str | None = None
    reason: str | None = None
    decision_id: str | None = None
    ask_id: str | None = None
    change_id: str | None = None
    reasons: dict[str, int] | None = None
    resource: _IndexedResource | None = None

    def names(self) -> tuple[int, ...]:
        """The numbers of its names."""
        resource = self.resource
        model, requested = (None, None) if resource is None else (resource.model, resource.requested)
        names = _names(
            self.tenant,
            self.tenant_record,
            self.key_id,
            self.claimed_key_id,
            model,
            requested,
            self.decision,
            self.reason,
        )
        if self.reasons:
            names += tuple(name_number("reason", one) for one in self.reasons)
        return names

    def ids(self) -> tuple[int, ...]:
        """The numbers of its own id, and of those of what it belongs to."""
        if self.decision_id is not None:
            return id_number(self.id), id_number(self.decision_id)
        other = self.ask_id or self.change_id
        return (id_number(self.id),) if other is None else (id_number(self.id), id_number(other))


parse_fields = msgspec.json.Decoder(IndexedFields).decode
"""The fields of a line. It accepts every line that is a record. Raises `ValueError`."""


@lru_cache(_REMEMBERED)
def name_number(kind: str, name: str) -> int:
    """The number of a name."""
    digest = blake2b(f"{kind}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@lru_cache(_REMEMBERED)
def _names(
    tenant: str | None,
    tenant_record: str | None,
    key_id: str | None,
    claimed_key_id: str | None,
    model: str | None,
    requested: str | None,
    decision: str | None,
    reason: str | None,
) -> tuple[int, ...]:
    named = (
        ("tenant", tenant),
        ("tenant_record", tenant_record),
        ("key", key_id),
        ("key", claimed_key_id),
        ("model", model),
        ("model", requested),
        ("decision", decision),
        ("reason", reason),
    )
    return tuple({name_number(kind, name): None for kind, name in named if name is not None})


def id_number(record_id: str) -> int:
    """The number of an id."""
    if len(record_id) == _ID_CHARACTERS:
        try:
            return int(record_id[24:], 16)
        except ValueError:
            pass
    return name_number("id", record_id) >> 16


def wanted_names(query: Query) -> list[int]:
    """The names that every record has which matches."""
    wanted = (
        ("tenant", query.tenant),
        ("tenant_record", query.tenant_record),
        ("key", query.key_id),
        ("model", query.model),
        ("decision", query.decision),
        ("reason", query.reason),
    )
    return [name_number(kind, name) for kind, name in wanted if name is not None]


def needles(query: Query) -> list[bytes]:
    """Bytes that every line contains which matches; names that JSON might write in two ways are left out."""
    wanted = (query.record_id, query.key_id, query.tenant, query.model, query.reason)
    return [b'"%b"' % name.encode() for name in wanted if name and _is_plain(name)]


def _is_plain(name: str) -> bool:
    return name.isascii() and name.isprintable() and not any(one in name for one in '"\\/')
