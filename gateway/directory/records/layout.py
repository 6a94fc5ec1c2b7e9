"""The msgpack layout of each kind of record, and strict decoding.

A row is an array: the kind's number, the layout's version, the generation of the record's last change, then
the fields of the kind in a fixed order. A row with a wrong kind, an unknown version, a missing or surplus
field, or trailing bytes is refused. To change a kind, add a layout 2 beside layout 1 and read both; numbers
of kinds and bits of scopes never get a new meaning.

Non-goal: whether the strings in a row are valid names; `codec.py` converts rows to facts.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import msgspec

from gateway.model.facts import Scope, Visibility

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Text = Annotated[str, msgspec.Meta(min_length=1)]

# One bit per scope instead of up to three names in each of a million key records.
SCOPE_BITS = {
    Scope.DISCOVER: 1,
    Scope.READ: 2,
    Scope.INFER: 4,
    Scope.AUDIT_READ: 8,
    Scope.KEYS_MANAGE: 16,
}
_ALL_SCOPE_BITS = sum(SCOPE_BITS.values())

CHECK_BYTES = 8  # of the digest that a key is stored under: two keys share them once in 2**64 pairs


class UnreadableRecordError(ValueError):
    """A record is not what its name says. Handled within this package."""


class Row(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """The base of all kinds: arrays of strict length."""


class KeyRow(Row, frozen=True, tag=1):
    """One API key."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    key_id: str  # without the common prefix; see `names.short_key_id`
    tenant: str | None  # None: an admin key
    name: str
    scopes: Annotated[int, msgspec.Meta(ge=0, le=_ALL_SCOPE_BITS)]
    networks: list[str]
    created_at: float
    not_before: float | None
    expires_at: float | None
    revoked_at: float | None
    pepper_id: _Text
    digest_check: Annotated[bytes, msgspec.Meta(min_length=CHECK_BYTES, max_length=CHECK_BYTES)]


class TenantRow(Row, frozen=True, tag=2):
    """One tenant."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    tenant: str
    name: str
    is_suspended: bool
    created_at: float
    degraded_seconds: float


class GrantRow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One grant, within the row of all grants of its tenant."""

    grant_id: _Text
    actions: list[str]
    models: list[str]
    groups: list[str]
    packages: list[str]
    source: _Text


class GrantsRow(Row, frozen=True, tag=3):
    """All grants of one tenant."""

    layout: Literal[1]
    generation: _Count
    tenant: str
    grants: list[GrantRow]


class RuleRow(Row, frozen=True, tag=4):
    """The rule of one pattern."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    pattern: str
    owner: str | None
    visibility: Visibility | None
    groups: list[str]


class AliasRow(Row, frozen=True, tag=5):
    """An alias of a model."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    alias: str
    canonical: str


class PolicyHead(Row, frozen=True, tag=6):
    """The policy set in force: its digest, and the digest that names the record of its texts."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    digest: _Text
    text_digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class PolicyTextRow(Row, frozen=True, tag=7):
    """The policy texts, stored under the SHA-256 of this record: immutable, so without generation."""

    layout: Literal[1]
    schema: str
    policies: list[tuple[str, str]]


_RowT = TypeVar("_RowT", bound=Row)

_encoder = msgspec.msgpack.Encoder()


def encode_row(row: Row) -> bytes:
    """Encode a row."""
    return _encoder.encode(row)


def decode_row(decoder: msgspec.msgpack.Decoder[_RowT], raw: bytes) -> _RowT:
    """Decode a row; raises `UnreadableRecordError` unless it is exactly of the decoder's kind."""
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRecordError("not a record of this kind and layout") from error


def verify_written_for(claimed: object, expected: object) -> None:
    """Raise if a row was written for another name than the one it was found under."""
    if claimed != expected:
        raise UnreadableRecordError("the record was written for another name")


def verify_times(*times: float | None) -> None:
    """Raise if a time is not finite: NaN fails every comparison, so a key would never expire."""
    if not all(time is None or math.isfinite(time) for time in times):
        raise UnreadableRecordError("a time is not a finite number")
