"""The records of origins and attestations."""

from __future__ import annotations

import msgspec
import pytest

from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_attestation,
    decode_origin,
    encode,
)
from gateway.model.facts import Attestation, Origin
from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MODEL, PACKAGE, HANDLE = ModelId("acme/cars/1"), PackageId("pkgA1"), FileHandle("labels.txt")
ORIGIN = Origin(model=MODEL, package=PACKAGE, handle=HANDLE, is_ours=True, generation=7, source="worker:a")
DIGESTS = frozenset({Md5("0" * 32), Md5("f" * 32), Md5("0123456789abcdef" * 2)})
ATTESTATION = Attestation(model=MODEL, digests=DIGESTS, generation=7, source="provider")


def changed(raw, position, value):
    row = msgspec.msgpack.decode(raw)
    row[position] = value
    return msgspec.msgpack.encode(row)


def test_an_origin_reads_back():
    for is_ours in (True, False):
        origin = Origin(model=MODEL, package=PACKAGE, handle=HANDLE, is_ours=is_ours)
        assert decode_origin(encode(origin), MODEL, PACKAGE, HANDLE) == origin
    assert decode_origin(encode(ORIGIN), MODEL, PACKAGE, HANDLE) == ORIGIN


def test_an_origin_speaks_for_its_own_file_only():
    raw = encode(ORIGIN)
    for other in (
        (ModelId("acme/cars/2"), PACKAGE, HANDLE),
        (MODEL, PackageId("pkgA2"), HANDLE),
        (MODEL, PACKAGE, FileHandle("other.txt")),
    ):
        with pytest.raises(UnreadableRecordError):
            decode_origin(raw, *other)


@pytest.mark.parametrize("digests", [frozenset(), DIGESTS])
def test_an_attestation_reads_back(digests):
    attestation = Attestation(model=MODEL, digests=digests)
    assert decode_attestation(encode(attestation), MODEL) == attestation
    assert decode_attestation(encode(ATTESTATION), MODEL) == ATTESTATION


def test_one_set_has_one_record():
    again = Attestation(model=MODEL, digests=frozenset(sorted(DIGESTS)), generation=7, source="provider")
    assert encode(again) == encode(ATTESTATION)


def test_an_attestation_speaks_for_its_own_model_only():
    with pytest.raises(UnreadableRecordError):
        decode_attestation(encode(ATTESTATION), ModelId("acme/cars/2"))


@pytest.mark.parametrize("raw", [b"", b"\x90", b"\xff", msgspec.msgpack.encode([13, 1]), encode(ORIGIN)])
def test_what_is_no_attestation_is_refused(raw):
    with pytest.raises(UnreadableRecordError):
        decode_attestation(raw, MODEL)


def test_half_a_digest_is_refused():
    raw = changed(encode(ATTESTATION), 5, b"x" * 17)
    with pytest.raises(UnreadableRecordError):
        decode_attestation(raw, MODEL)


def test_a_layout_that_is_not_known_is_refused():
    with pytest.raises(UnreadableRecordError):
        decode_origin(changed(encode(ORIGIN), 1, 2), MODEL, PACKAGE, HANDLE)
