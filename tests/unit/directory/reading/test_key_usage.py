from __future__ import annotations

import pytest

from gateway.directory.reading.key_usage import (
    MAX_FAILED_HASHES,
    find_last_uses,
    find_marked_keys,
    note_credential_marks,
    note_last_uses,
)
from gateway.directory.records import names
from gateway.model.errors import Unavailable
from gateway.model.names import KeyId

pytestmark = pytest.mark.anyio

IDS = [KeyId(f"key_{bucket}0000000{number:03d}") for bucket in ("ab", "cd") for number in range(3)]


async def test_last_uses_are_found_again_and_unknown_ones_are_none(store):
    uses = {key_id: 1_700_000_000.75 + index for index, key_id in enumerate(IDS[:-1])}
    await note_last_uses(store, uses)
    found = await find_last_uses(store, IDS)
    assert found == {**{key_id: float(int(seen_at)) for key_id, seen_at in uses.items()}, IDS[-1]: None}


async def test_noting_a_use_moves_no_generation(store):
    await note_last_uses(store, {IDS[0]: 1.0})
    assert await store.generation() == 0


async def test_a_hint_that_is_no_number_is_no_hint(store):
    bucket, field = names.last_use(IDS[0])
    await store.put_hash(bucket, {field: b"yesterday"})
    assert await find_last_uses(store, [IDS[0]]) == {IDS[0]: None}


MARKS = {key_id: bytes([number]) * 32 for number, key_id in enumerate(IDS)}


async def test_a_key_is_found_by_its_mark_and_an_unknown_mark_by_nothing(store):
    await note_credential_marks(store, MARKS)
    wanted = [*MARKS.values(), b"?" * 32]
    assert await find_marked_keys(store, wanted) == {mark: key_id for key_id, mark in MARKS.items()}


async def test_noting_a_mark_moves_no_generation(store):
    await note_credential_marks(store, MARKS)
    assert await store.generation() == 0


async def test_a_mark_of_what_is_no_key_id_is_no_hint(store):
    bucket, field = names.credential_mark(b"m" * 32)
    await store.put_hash(bucket, {field: b"\xff?"})
    assert await find_marked_keys(store, [b"m" * 32]) == {}


def test_marks_lie_outside_of_the_facts_and_apart_from_each_other():
    placed = [names.credential_mark(mark) for mark in MARKS.values()]
    assert len(set(placed)) == len(MARKS)
    assert not any(name.startswith(names.FACTS) for name, _ in placed)


BUCKETS = [KeyId(f"key_{bucket}0000000000") for bucket in ("ab", "cd", "ef", "gh", "ij", "kl", "mn")]


@pytest.mark.parametrize("spoilt", range(len(BUCKETS)))
async def test_a_hash_that_cannot_be_written_keeps_no_other_from_being(store, spoilt):
    """A hash that was replaced by a string fails each time, whatever its position among the others."""
    bucket, _ = names.last_use(BUCKETS[spoilt])
    await store._client.set(bucket, b"no hash")
    failure = await note_last_uses(store, dict.fromkeys(BUCKETS, 5.0))
    assert failure is not None
    others = [one for one in BUCKETS if one != BUCKETS[spoilt]]
    assert await find_last_uses(store, others) == dict.fromkeys(others, 5.0)


async def test_a_mark_that_cannot_be_written_comes_back_and_the_others_are_written(store):
    marks = {key_id: bytes([16 * number]) * 32 for number, key_id in enumerate(IDS)}
    bucket, _ = names.credential_mark(marks[IDS[2]])
    await store._client.set(bucket, b"no hash")
    unwritten, failure = await note_credential_marks(store, marks)
    assert failure is not None
    assert unwritten == {IDS[2]: marks[IDS[2]]}
    del marks[IDS[2]]
    assert await find_marked_keys(store, marks.values()) == {mark: one for one, mark in marks.items()}


async def test_a_server_that_does_not_answer_is_not_asked_for_each_hash():
    asked = []

    class Gone:
        async def put_hash(self, name, values):
            asked.append(name)
            raise Unavailable("redis", "gone")

    failure = await note_last_uses(Gone(), dict.fromkeys(BUCKETS, 5.0))
    unwritten, _ = await note_credential_marks(Gone(), MARKS)
    assert failure is not None
    assert unwritten == MARKS
    assert len(asked) <= 2 * MAX_FAILED_HASHES


async def test_each_hash_has_its_turn_although_others_fail_each_time():
    """With more broken hashes than are tried in one call, the random order still reaches the others."""
    written = set()

    class Spoilt:
        async def put_hash(self, name, values):
            if name != names.last_use(BUCKETS[-1])[0]:
                raise Unavailable("redis", "gave no usable answer (ResponseError)")
            written.add(name)

    for _ in range(200):
        await note_last_uses(Spoilt(), dict.fromkeys(BUCKETS, 5.0))
    assert written
