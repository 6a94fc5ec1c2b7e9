"""Origins are written once; attestations only grow."""

from __future__ import annotations

from functools import partial

import pytest

from gateway.directory.edits.changes import change
from gateway.directory.edits.provenance import attest, determine_origins
from gateway.directory.records import names
from gateway.directory.records.codec import decode_attestation, decode_origin
from gateway.model.errors import Conflict
from gateway.model.facts import MAX_ATTESTED, Origin
from gateway.model.names import FileHandle, Md5, ModelId, PackageId

pytestmark = pytest.mark.anyio

MODEL, PACKAGE = ModelId("acme/cars/1"), PackageId("pkgA1")
ONE, TWO = Md5("0" * 32), Md5("f" * 32)


def origin(handle, *, is_ours):
    return Origin(model=MODEL, package=PACKAGE, handle=FileHandle(handle), is_ours=is_ours)


@pytest.fixture
def write_origins(store):
    async def operate(*origins):
        return await change(store, partial(determine_origins, origins=origins))

    return operate


@pytest.fixture
def attest_digests(store):
    async def operate(*digests, source="provider"):
        return await change(store, partial(attest, model=MODEL, digests=digests, source=source))

    return operate


async def test_the_first_word_on_a_file_stands(store, write_origins):
    [first], moment = await write_origins(origin("a.txt", is_ours=True))
    assert first.is_ours
    in_force, _ = await write_origins(origin("a.txt", is_ours=False), origin("b.txt", is_ours=False))
    assert [one.is_ours for one in in_force] == [True, False]
    _, [raw] = await store.read([names.origin_fact(MODEL, PACKAGE, FileHandle("a.txt"))])
    known = decode_origin(raw, MODEL, PACKAGE, FileHandle("a.txt"))
    assert (known.is_ours, known.generation) == (True, moment.generation)


async def test_what_is_settled_changes_nothing(write_origins):
    _, before = await write_origins(origin("a.txt", is_ours=True))
    _, after = await write_origins(origin("a.txt", is_ours=True))
    assert after == before


async def test_a_broken_word_is_not_written_over(corrupt, write_origins):
    await corrupt(names.origin_fact(MODEL, PACKAGE, FileHandle("a.txt")), b"broken")
    with pytest.raises(Conflict):
        await write_origins(origin("a.txt", is_ours=True))


async def test_attestations_grow_and_are_never_taken_back_by_a_shorter_word(store, attest_digests):
    effect, _ = await attest_digests(ONE)
    assert effect.is_changed
    await attest_digests(TWO, source="cli")
    effect, _ = await attest_digests(TWO)
    assert not effect.is_changed
    _, [raw] = await store.read([names.attestation_fact(MODEL)])
    assert decode_attestation(raw, MODEL).digests == {ONE, TWO}


async def test_a_model_has_only_so_many(attest_digests):
    with pytest.raises(Conflict):
        await attest_digests(*(Md5(f"{number:032x}") for number in range(MAX_ATTESTED + 1)))


async def test_two_files_never_share_a_record():
    named = {
        names.origin_fact(ModelId(model), PackageId(package), FileHandle(handle))
        for model in ("a", "a/b", "ab")
        for package in ("p", "bp")
        for handle in ("f", "p/f", "g")
    }
    assert len(named) == 18
