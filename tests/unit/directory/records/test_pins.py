"""Pins as records, and pins read through a worker's memory."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from gateway.directory.reading.pins import NearPins
from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_pin, encode
from gateway.model.errors import Reason, Refusal
from gateway.model.names import Md5
from gateway.model.pins import Pin, Quarantine, QuarantineCause
from gateway.model.stamps import Leaf

BLOB = Md5("ab" * 16)
PIN = Pin(md5=BLOB, sha256="cd" * 32, size=15, pinned_at=7.5, generation=3, source="worker:n:1")
HELD = replace(
    PIN, quarantine=Quarantine(cause=QuarantineCause.NOT_ITS_PIN, since=8.5, found_sha256="ef" * 32)
)


class Remembered:
    """A fact source that has read some names."""

    def __init__(self, **records):
        self.leaves = {name.encode(): Leaf(name.encode(), value) for name, value in records.items()}

    async def read(self, wanted):
        return 9, [self.leaves[name] for name in wanted]

    def find(self, wanted):
        found = [self.leaves.get(name) for name in wanted]
        return None if None in found else found


def source_with(value):
    return Remembered(**{names.pin_fact(BLOB).decode(): value})


@pytest.mark.parametrize("pin", [PIN, HELD, replace(HELD, sha256=None)])
def test_what_was_encoded_is_decoded(pin):
    assert decode_pin(encode(pin), BLOB) == pin


def test_a_record_speaks_for_its_own_blob_only():
    with pytest.raises(UnreadableRecordError):
        decode_pin(encode(PIN), Md5("00" * 16))


@pytest.mark.parametrize(
    "pin",
    [
        replace(PIN, pinned_at=math.nan),
        replace(HELD, quarantine=replace(HELD.quarantine, since=math.inf)),
        replace(PIN, sha256="cd" * 31),
    ],
)
def test_a_time_that_is_none_or_a_short_digest_is_unreadable(pin):
    with pytest.raises(UnreadableRecordError):
        decode_pin(encode(pin), BLOB)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x90", encode(PIN)[:-1], encode(PIN) + b"\x00"])
def test_what_is_not_exactly_a_record_is_unreadable(raw):
    with pytest.raises(UnreadableRecordError):
        decode_pin(raw, BLOB)


def test_half_a_quarantine_is_unreadable():
    whole, bare = encode(HELD), encode(PIN)
    assert bare.endswith(b"\xc0\xc0\xc0")
    half = whole[: -len(bytes.fromhex("ef" * 32)) - 2] + b"\xc0"
    with pytest.raises(UnreadableRecordError):
        decode_pin(half, BLOB)


@pytest.mark.anyio
async def test_a_pin_is_found_with_the_record_and_the_generation_it_stands_on():
    source = source_with(encode(PIN))
    found = await NearPins(source).find(BLOB)
    assert (found.pin, found.generation) == (PIN, 9)
    assert found.leaf is source.leaves[names.pin_fact(BLOB)]
    assert NearPins(source).recall(BLOB).pin == PIN


@pytest.mark.anyio
async def test_an_absent_pin_is_known_to_be_absent():
    assert (await NearPins(source_with(None)).find(BLOB)).pin is None
    assert NearPins(source_with(None)).recall(BLOB).pin is None
    assert NearPins(Remembered()).recall(BLOB) is None


@pytest.mark.anyio
async def test_a_pin_that_does_not_parse_denies_and_is_reported():
    reported = []
    pins = NearPins(source_with(b"\xc1garbage"), on_unreadable=reported.append)
    assert pins.recall(BLOB) is None
    with pytest.raises(Refusal) as refusal:
        await pins.find(BLOB)
    assert refusal.value.reason is Reason.UNREADABLE_FACT
    assert reported == [names.pin_fact(BLOB).decode()]
