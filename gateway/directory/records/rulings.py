"""Encodes the platform's rulings and endings as records and decodes them, as strictly as `codec.py`.

Each record repeats its key and model and is refused under any other name. A record that does not parse is no
ruling: the platform is asked again, and nothing is allowed before it has answered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from gateway.directory.records.layout import (
    Row,
    UnreadableRecordError,
    decode_row,
    encode_row,
    verify_written_for,
)
from gateway.model.errors import Reason
from gateway.model.rulings import DENIALS, Ruling

if TYPE_CHECKING:
    from gateway.model.names import KeyId, ModelId

_Count = Annotated[int, msgspec.Meta(ge=0)]


class RulingRow(Row, frozen=True, tag=9):
    """One answer of the platform, or one minting of URLs under it."""

    layout: Literal[1]
    generation: _Count
    key_id: str
    model: str | None
    reason: str
    until: float
    asked: _Count


class EndingRow(Row, frozen=True, tag=10):
    """A mark that rulings asked before this generation do not count. Its name identifies the subject."""

    layout: Literal[1]
    generation: _Count


_REASONS = {reason.value: reason for reason in (Reason.PERMITTED, *DENIALS)}

_RULINGS = msgspec.msgpack.Decoder(RulingRow)
_ENDINGS = msgspec.msgpack.Decoder(EndingRow)


def encode_ruling(ruling: Ruling) -> bytes:
    """Encode a ruling, a standing or a links record; they have different names."""
    return encode_row(
        RulingRow(
            layout=1,
            generation=ruling.generation,
            key_id=ruling.key_id,
            model=ruling.model,
            reason=ruling.reason.value,
            until=ruling.until,
            asked=ruling.asked,
        )
    )


def decode_ruling(raw: bytes, key_id: KeyId, model: ModelId | None) -> Ruling:
    """Decode the ruling stored under the name of this key and model."""
    row = decode_row(_RULINGS, raw)
    verify_written_for((row.key_id, row.model), (key_id, model))
    if not math.isfinite(row.until):
        raise UnreadableRecordError("a time is not a finite number")
    if row.reason not in _REASONS:
        raise UnreadableRecordError("a ruling says what no platform says")
    return Ruling(
        key_id=key_id,
        model=model,
        reason=_REASONS[row.reason],
        until=row.until,
        asked=row.asked,
        generation=row.generation,
    )


def encode_ending(generation: int) -> bytes:
    """Encode an ending."""
    return encode_row(EndingRow(layout=1, generation=generation))


def decode_ending(raw: bytes) -> int:
    """Decode an ending: rulings asked before this generation do not count."""
    return decode_row(_ENDINGS, raw).generation
