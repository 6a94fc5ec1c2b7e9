"""Whose URL is used for a file without a digest: decided once for ever, without needless changes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.directory.records import names
from gateway.directory.records.codec import decode_origin, encode
from gateway.model.errors import Conflict, Reason, Refusal
from gateway.model.facts import Origin
from gateway.model.names import FileHandle, ModelId, PackageId
from gateway.model.stamps import Leaf
from gateway.model_metadata.origins import MAX_NAMED, Origins
from gateway.registrar import Done

MODEL, PACKAGE = ModelId("acme/cars/1"), PackageId("pkgA1")
A, B = (PACKAGE, FileHandle("a.txt")), (PACKAGE, FileHandle("b.txt"))


class Facts:
    """A worker's memory, the store's content, and the changes that were made."""

    def __init__(self):
        self.remembered, self.stored, self.changes = {}, {}, []

    async def read(self, wanted):
        return 1, [Leaf(name, self.remembered.get(name)) for name in wanted]

    async def read_afresh(self, wanted):
        return 1, [Leaf(name, self.stored.get(name)) for name in wanted]

    async def perform(self, change, operation):
        self.changes.append(change)
        settled = []
        for new in operation.keywords["origins"]:
            name = names.origin_fact(new.model, new.package, new.handle)
            raw = self.stored.setdefault(name, encode(new))
            settled.append(decode_origin(raw, new.model, new.package, new.handle))
        return Done(tuple(settled), 2)

    def now(self):
        return 1.0

    def put(self, where, file, *, is_ours):
        origin = Origin(model=MODEL, package=file[0], handle=file[1], is_ours=is_ours)
        where[names.origin_fact(MODEL, *file)] = encode(origin)


@pytest.fixture
def facts():
    return Facts()


@pytest.fixture
def origins(facts):
    return Origins(source=facts, perform=facts.perform, clock=facts, actor="worker:n")


def determine(origins, wanted):
    return asyncio.run(origins.determine(MODEL, wanted))


def test_what_is_new_becomes_what_is_wanted_in_one_recorded_change(facts, origins):
    assert determine(origins, {A: True, B: False}) == {A: True, B: False}
    [change] = facts.changes
    assert change.action == "links.origin"
    assert change.subject == (MODEL, "2 files", "pkgA1/a.txt ours", "pkgA1/b.txt provider")


def test_what_is_remembered_stands_and_changes_nothing(facts, origins):
    facts.put(facts.remembered, A, is_ours=False)
    assert determine(origins, {A: True}) == {A: False}
    assert facts.changes == []


def test_what_another_worker_has_just_said_stands_and_is_not_recorded_again(facts, origins):
    facts.put(facts.stored, A, is_ours=False)
    assert determine(origins, {A: True}) == {A: False}
    assert facts.changes == []


def test_of_what_was_never_handed_out_nothing_is_found(facts, origins):
    facts.put(facts.remembered, A, is_ours=True)
    assert asyncio.run(origins.find(MODEL, [A, B])) == {A: True}


def test_a_record_that_does_not_parse_denies(facts, origins):
    facts.remembered[names.origin_fact(MODEL, *A)] = b"broken"
    with pytest.raises(Refusal) as refusal:
        determine(origins, {A: True})
    assert refusal.value.reason is Reason.UNREADABLE_FACT


def test_a_record_that_broke_meanwhile_denies_as_well(facts, origins, monkeypatch):
    async def perform(_change, _operation):
        raise Conflict("a record does not parse")

    monkeypatch.setattr(origins, "_perform", perform)
    with pytest.raises(Refusal) as refusal:
        determine(origins, {A: True})
    assert refusal.value.reason is Reason.UNREADABLE_FACT


def test_the_record_of_a_change_names_only_so_many_files(facts, origins):
    determine(origins, {(PACKAGE, FileHandle(f"{number}.txt")): True for number in range(MAX_NAMED + 5)})
    [change] = facts.changes
    assert change.subject[1] == f"{MAX_NAMED + 5} files"
    assert len(change.subject) == MAX_NAMED + 2
