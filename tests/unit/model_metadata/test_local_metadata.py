"""The cache's metadata of a model: whole packages within the bounds, and large ones without blocking."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest
from msgspec.structs import replace

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.model_metadata import local_metadata
from gateway.model_metadata.local_metadata import LocalMetadata
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.disk_checks import SeenOnDisk
from gateway.resource.held_listings import HELD_SECONDS, HeldListings
from gateway.resource.naming import model_directory
from tests.unit.conftest import ClockBesideFiles

MODEL = "acme/cars/1"


class World:
    def __init__(self, root):
        self.root = root
        self.damaged, self.left_out, self.threads = [], [], []
        self.catalogue = DiskCatalogue(CatalogueSettings(root=root), SystemClock())
        self.local = LocalMetadata(
            self.catalogue,
            on_damaged=self.damaged.append,
            on_left_out=lambda model, count: self.left_out.append((model, count)),
        )

    def write(self, package, count):
        files = {f"f{number:05}.bin": b"content %d" % (number % 7) for number in range(count)}
        write_sample_cache(self.root, [SampleModel(model_id=MODEL, packages={package: files})])

    def write_record(self, content):
        folder = self.root / "offline-weights-registry"
        folder.mkdir(exist_ok=True)
        (folder / f"{sample_directory(MODEL)}.json").write_bytes(content)

    def find(self, withheld=None):
        """The packages of the answer, each with how many files it has; None when there is none."""
        answer = asyncio.run(self.local.find(MODEL, withheld))
        return None if answer is None else {one.package: len(one.files) for one in answer.packages}


@pytest.fixture
def world(tmp_path, monkeypatch):
    world = World(tmp_path)
    original = local_metadata.find_local_answer

    def find_local_answer(*about):
        world.threads.append(threading.current_thread())
        return original(*about)

    monkeypatch.setattr(local_metadata, "find_local_answer", find_local_answer)
    return world


def test_a_small_answer_is_made_where_it_is_asked_for(world):
    world.write("p1", 3)
    assert world.find() == {"p1": 3}
    assert world.threads == [threading.main_thread()]


def test_a_large_one_is_made_in_another_thread_than_the_loops(world):
    world.write("p1", 400)
    assert world.find() == {"p1": 400}
    [thread] = world.threads
    assert thread is not threading.main_thread()


def test_a_package_for_which_there_is_no_room_is_left_out_and_told_once(world, monkeypatch):
    monkeypatch.setattr(local_metadata, "BOUNDS", replace(local_metadata.BOUNDS, files=10))
    world.write("p1", 3)
    world.write("p2", 8)
    for _ in range(3):
        assert world.find() == {"p1": 3}
    assert world.left_out == [(MODEL, 1)]


def test_what_is_withheld_is_asked_about_the_packages_that_there_are(world):
    world.write("p1", 3)
    world.write("p2", 2)
    asked = []

    async def withheld(model, packages):
        asked.append((model, [one.package for one in packages]))
        return frozenset({"p1"})

    assert world.find(withheld) == {"p2": 2}
    assert asked == [(MODEL, ["p1", "p2"])]


def test_without_a_package_there_is_nothing_to_be_said(world):
    (world.root / "models-cache").mkdir()
    assert world.find() is None
    assert asyncio.run(world.local.find_stat(MODEL)) is None


@pytest.mark.parametrize(
    "record",
    [b"{", b"[" * 100_000, b" " * (2 << 20), json.dumps({"packages": [1] * 100_000}).encode()],
    ids=["broken", "deep", "too large", "too many members"],
)
def test_a_damaged_record_is_left_out_and_told_once(world, record):
    world.write("p1", 3)
    world.write_record(record)
    for _ in range(3):
        assert world.find() == {"p1": 3}
    assert world.damaged == [MODEL]


RECORD = json.dumps(
    {"format_version": 1, "canonical_model_id": MODEL, "model": {"model_variant": "n"}, "packages": []}
).encode()


class KeepingWorld(World):
    """The same, with small answers kept. Files count as written long ago."""

    def __init__(self, root):
        super().__init__(root)
        self.clock = ClockBesideFiles()
        self.held = HeldListings(root=root, clock=self.clock, max_bytes=1 << 20)
        self.local = LocalMetadata(
            self.catalogue,
            on_damaged=self.damaged.append,
            on_left_out=lambda model, count: self.left_out.append((model, count)),
            held=self.held,
        )
        self.write("p1", 3)
        self.package = root / "models-cache" / model_directory(MODEL) / "p1"

    @property
    def record(self):
        return self.root / "offline-weights-registry" / f"{sample_directory(MODEL)}.json"

    def kept(self):
        return self.local.find_now(MODEL, SeenOnDisk())


@pytest.fixture
def keeping(tmp_path):
    return KeepingWorld(tmp_path)


@pytest.mark.parametrize("has_record", [False, True])
def test_a_small_answer_is_kept_and_is_the_same_object(keeping, has_record):
    if has_record:
        keeping.write_record(RECORD)
    assert keeping.kept() is None
    answer = asyncio.run(keeping.local.find(MODEL))
    assert keeping.damaged == []
    assert keeping.kept() is answer
    assert asyncio.run(keeping.local.find(MODEL)) is answer


CHANGES = {
    "the manifest": lambda keeping: os.utime(keeping.package / "model_config.json"),
    "a file": lambda keeping: (keeping.package / "f00001.bin").unlink(),
    "another package": lambda keeping: keeping.write("p2", 1),
    "a record that came": lambda keeping: keeping.write_record(b"{}"),
    "two seconds": lambda keeping: setattr(keeping.clock, "steady", keeping.clock.steady + HELD_SECONDS),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_answer_is_not_kept_beyond_a_change(keeping, change):
    answer = asyncio.run(keeping.local.find(MODEL))
    assert keeping.kept() is answer
    CHANGES[change](keeping)
    assert keeping.kept() is None


def test_an_answer_is_not_kept_beyond_what_others_then_found(keeping):
    asyncio.run(keeping.local.find(MODEL))
    os.utime(keeping.package / "model_config.json")
    assert asyncio.run(keeping.local._find_packages(MODEL)) is keeping.held.find_manifests(
        MODEL, SeenOnDisk()
    )
    assert keeping.kept() is None


@pytest.mark.parametrize("change", ["gone", "rewritten"])
def test_an_answer_is_not_kept_beyond_a_change_of_the_record(keeping, change):
    keeping.write_record(RECORD)
    answer = asyncio.run(keeping.local.find(MODEL))
    assert keeping.kept() is answer
    if change == "gone":
        keeping.record.unlink()
    else:
        keeping.write_record(RECORD + b" ")
    assert keeping.kept() is None


@pytest.mark.parametrize("record", [None, RECORD], ids=["came", "changed"])
def test_an_answer_is_not_kept_when_the_record_changed_while_it_was_read(keeping, record, monkeypatch):
    read = keeping.catalogue.registry_record

    def then_changed(model):
        found = read(model)
        keeping.write_record(b"{}")
        return found

    if record is not None:
        keeping.write_record(record)
    monkeypatch.setattr(keeping.catalogue, "registry_record", then_changed)
    assert asyncio.run(keeping.local.find(MODEL)) is not None
    monkeypatch.undo()
    assert len(keeping.local.memory) == 0


def test_an_answer_with_a_record_that_was_just_written_is_not_kept(keeping):
    keeping.write_record(RECORD)
    asyncio.run(keeping.local._find_packages(MODEL))  # is kept: its files are old
    keeping.clock.wall -= 60
    assert asyncio.run(keeping.local.find(MODEL)) is not None
    assert len(keeping.local.memory) == 0


def test_an_answer_with_a_damaged_record_is_not_kept(keeping):
    keeping.write_record(b"{")
    assert asyncio.run(keeping.local.find(MODEL)) is not None
    assert (keeping.kept(), keeping.damaged) == (None, [MODEL])


def test_an_answer_without_the_withheld_packages_is_neither_kept_nor_taken_from_what_is(keeping):
    keeping.write("p2", 1)

    async def withheld(_model, _packages):
        return frozenset({"p2"})

    def found():
        return {one.package for one in asyncio.run(keeping.local.find(MODEL, withheld)).packages}

    assert found() == {"p1"}
    assert keeping.kept() is None
    whole = asyncio.run(keeping.local.find(MODEL))
    assert found() == {"p1"}
    assert keeping.kept() is whole
