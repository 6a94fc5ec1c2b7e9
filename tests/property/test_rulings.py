"""Laws of rulings: only the record written for a name is read under it, and no late answer counts."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from gateway.directory.records import names
from gateway.directory.records.codec import UnreadableRecordError, decode_ending, decode_ruling, encode
from gateway.model.errors import Reason
from gateway.model.names import KeyId, ModelId
from gateway.model.rulings import DENIALS, Ruling
from tests.structs import made

key_ids = st.from_regex(r"key_[0-9A-Za-z]{12}", fullmatch=True).map(KeyId)
models = st.none() | st.from_regex(r"[a-z:]{1,8}(/[a-z0-9:]{1,8}){0,2}", fullmatch=True).map(ModelId)
rulings = st.builds(
    made(Ruling),
    key_id=key_ids,
    model=models,
    reason=st.sampled_from([Reason.PERMITTED, *sorted(DENIALS)]),
    until=st.floats(allow_nan=False, allow_infinity=False),
    asked=st.integers(0, 1 << 60),
    generation=st.integers(0, 1 << 60),
)


@given(rulings, key_ids, models)
def test_a_ruling_is_read_under_its_own_name_and_under_no_other(ruling, key_id, model):
    raw = encode(ruling)
    assert decode_ruling(raw, ruling.key_id, ruling.model) == ruling
    if (key_id, model) != (ruling.key_id, ruling.model):
        read = []
        with suppress(UnreadableRecordError):
            read.append(decode_ruling(raw, key_id, model))
        assert not read


@given(st.binary(max_size=200), key_ids, models)
def test_any_bytes_are_read_or_unreadable_and_nothing_else(raw, key_id, model):
    with suppress(UnreadableRecordError):
        assert decode_ruling(raw, key_id, model).key_id == key_id
    with suppress(UnreadableRecordError):
        assert decode_ending(raw) >= 0


@given(st.lists(st.tuples(key_ids, models), unique=True, max_size=20))
def test_no_two_things_share_a_name(things):
    made = [names.ruling_fact(key_id, model) for key_id, model in things]
    made += [names.links_fact(key_id, model) for key_id, model in things if model is not None]
    made += [names.asking_lock(key_id, model) for key_id, model in things]
    made += {names.ending_fact(key_id, is_key=True) for key_id, _ in things}
    made += {names.ending_fact(model) for _, model in things}
    assert len(set(made)) == len(made)
