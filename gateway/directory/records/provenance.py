"""Encodes origins and attestations as records and decodes them, as strictly as `codec.py`.

Each record repeats the name of its subject and is refused under another name. Digests are stored as raw
bytes, sorted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from gateway.directory.records.layout import (
    Row,
    UnreadableRecordError,
    decode_row,
    encode_row,
    verify_written_for,
)
from gateway.model.names import Md5
from gateway.model.provenance import MAX_ATTESTED, Attestation, Origin

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, ModelId, PackageId

_MD5_BYTES = 16
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class OriginRow(Row, frozen=True, tag=11):
    """Whose URL was handed out for one file."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    model: str
    package: str
    handle: str
    is_ours: bool


class AttestationRow(Row, frozen=True, tag=12):
    """The digests of one model, concatenated."""

    layout: Literal[1]
    generation: _Count
    source: _Text
    model: str
    digests: Annotated[bytes, msgspec.Meta(max_length=MAX_ATTESTED * _MD5_BYTES)]


_ORIGINS = msgspec.msgpack.Decoder(OriginRow)
_ATTESTATIONS = msgspec.msgpack.Decoder(AttestationRow)


def encode_origin(origin: Origin) -> bytes:
    """Encode an origin."""
    return encode_row(
        OriginRow(
            layout=1,
            generation=origin.generation,
            source=origin.source,
            model=origin.model,
            package=origin.package,
            handle=origin.handle,
            is_ours=origin.is_ours,
        )
    )


def decode_origin(raw: bytes, model: ModelId, package: PackageId, handle: FileHandle) -> Origin:
    """Decode the record stored under this file's name."""
    row = decode_row(_ORIGINS, raw)
    verify_written_for((row.model, row.package, row.handle), (model, package, handle))
    return Origin(
        model=model,
        package=package,
        handle=handle,
        is_ours=row.is_ours,
        generation=row.generation,
        source=row.source,
    )


def encode_attestation(attestation: Attestation) -> bytes:
    """Encode an attestation."""
    return encode_row(
        AttestationRow(
            layout=1,
            generation=attestation.generation,
            source=attestation.source,
            model=attestation.model,
            digests=b"".join(bytes.fromhex(md5) for md5 in sorted(attestation.digests)),
        )
    )


def decode_attestation(raw: bytes, model: ModelId) -> Attestation:
    """Decode the record stored under this model's name."""
    row = decode_row(_ATTESTATIONS, raw)
    verify_written_for(row.model, model)
    if len(row.digests) % _MD5_BYTES:
        raise UnreadableRecordError("half a digest")
    texts = row.digests.hex()
    width = 2 * _MD5_BYTES
    digests = frozenset(Md5(texts[start : start + width]) for start in range(0, len(texts), width))
    return Attestation(model=model, digests=digests, generation=row.generation, source=row.source)
