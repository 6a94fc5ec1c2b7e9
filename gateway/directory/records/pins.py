"""Encodes a blob's pin as a record and decodes it, as strictly as `codec.py`.

A record that does not parse denies: a blob whose expected content is unknown is not served. Digests are
stored as raw bytes, half the size of hex; a million pins are about 150 MB.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from gateway.directory.records.layout import Row, UnreadableRecordError, decode_row, encode_row
from gateway.model.pins import Cause, Pin, Quarantine

if TYPE_CHECKING:
    from gateway.model.names import Md5

_Md5Bytes = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Sha256Bytes = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class PinRow(Row, frozen=True, tag=8):
    """One blob's pin. The last three fields are set together or not at all."""

    layout: Literal[1]
    generation: Annotated[int, msgspec.Meta(ge=0)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    md5: _Md5Bytes
    sha256: _Sha256Bytes | None
    size: Annotated[int, msgspec.Meta(ge=0)]
    pinned_at: float
    cause: Cause | None
    quarantined_at: float | None
    found_sha256: _Sha256Bytes | None


_PINS = msgspec.msgpack.Decoder(PinRow)


def encode_pin(pin: Pin) -> bytes:
    """Encode a pin."""
    quarantine = pin.quarantine
    return encode_row(
        PinRow(
            layout=1,
            generation=pin.generation,
            source=pin.source,
            md5=bytes.fromhex(pin.md5),
            sha256=None if pin.sha256 is None else bytes.fromhex(pin.sha256),
            size=pin.size,
            pinned_at=pin.pinned_at,
            cause=None if quarantine is None else quarantine.cause,
            quarantined_at=None if quarantine is None else quarantine.since,
            found_sha256=None if quarantine is None else bytes.fromhex(quarantine.found_sha256),
        )
    )


def decode_pin(raw: bytes, md5: Md5) -> Pin:
    """Decode the record stored under this blob's name."""
    row = decode_row(_PINS, raw)
    if row.md5.hex() != md5:
        raise UnreadableRecordError("the record was written for another blob")
    if not math.isfinite(row.pinned_at):
        raise UnreadableRecordError("a time is not a finite number")
    return Pin(
        md5=md5,
        sha256=None if row.sha256 is None else row.sha256.hex(),
        size=row.size,
        pinned_at=row.pinned_at,
        quarantine=_quarantine(row),
        generation=row.generation,
        source=row.source,
    )


def _quarantine(row: PinRow) -> Quarantine | None:
    parts = (row.cause, row.quarantined_at, row.found_sha256)
    if parts == (None, None, None):
        return None
    if row.cause is None or row.quarantined_at is None or row.found_sha256 is None:
        raise UnreadableRecordError("half a quarantine")
    if not math.isfinite(row.quarantined_at):
        raise UnreadableRecordError("a time is not a finite number")
    return Quarantine(cause=row.cause, since=row.quarantined_at, found_sha256=row.found_sha256.hex())
