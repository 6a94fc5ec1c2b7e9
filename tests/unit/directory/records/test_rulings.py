from __future__ import annotations

import math

import msgspec
import pytest
from msgspec.structs import replace

from gateway.directory.records.codec import (
    UnreadableRecordError,
    decode_ending,
    decode_ruling,
    encode,
)
from gateway.model.errors import Reason
from gateway.model.names import KeyId, ModelId
from gateway.model.rulings import DENIALS, EndMark, Ruling

KEY, CARS = KeyId("key_000000000001"), ModelId("acme/cars/1")
ALLOW = Ruling(key_id=KEY, model=CARS, reason=Reason.PERMITTED, until=160.5, asked=7, generation=8)


@pytest.mark.parametrize("reason", [Reason.PERMITTED, *sorted(DENIALS)])
@pytest.mark.parametrize("model", [CARS, None])
def test_a_ruling_comes_back_as_it_was(reason, model):
    ruling = replace(ALLOW, reason=reason, model=model)
    assert decode_ruling(encode(ruling), KEY, model) == ruling


@pytest.mark.parametrize(
    ("key_id", "model"),
    [(KeyId("key_000000000002"), CARS), (KEY, ModelId("acme/cars/2")), (KEY, None)],
)
def test_a_ruling_under_another_name_is_unreadable(key_id, model):
    with pytest.raises(UnreadableRecordError):
        decode_ruling(encode(ALLOW), key_id, model)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 10), (1, 2), (2, -1), (2, "8"), (3, 1), (5, "absent"), (5, "not-permitted"), (5, ""),
        (6, math.nan), (6, math.inf), (6, "160"), (7, -1), (7, 1.5), (7, None),
    ],
)  # fmt: skip
def test_a_field_that_is_not_as_it_must_be_is_unreadable(place, value):
    row = msgspec.msgpack.decode(encode(ALLOW))
    row[place] = value
    with pytest.raises(UnreadableRecordError):
        decode_ruling(msgspec.msgpack.encode(row), KEY, CARS)


@pytest.mark.parametrize("change", [lambda row: row[:-1], lambda row: [*row, 1]])
def test_a_row_of_another_length_is_unreadable(change):
    row = msgspec.msgpack.decode(encode(ALLOW))
    with pytest.raises(UnreadableRecordError):
        decode_ruling(msgspec.msgpack.encode(change(row)), KEY, CARS)


def test_an_ending_comes_back_as_it_was_and_is_no_ruling():
    assert decode_ending(encode(EndMark(generation=12))) == 12
    with pytest.raises(UnreadableRecordError):
        decode_ruling(encode(EndMark(generation=12)), KEY, CARS)
    with pytest.raises(UnreadableRecordError):
        decode_ending(encode(ALLOW))
