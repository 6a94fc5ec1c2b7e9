"""Cached files are served only while they are unchanged on disk: every way in which they may change."""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.delivery.file_answer import describe_whole
from gateway.model.stamps import Leaf
from gateway.model.verdicts import HeldFile
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.disk_checks import SeenOnDisk
from gateway.resource.held_files import HELD_SECONDS, MAX_FILE_BYTES, HeldFiles
from gateway.resource.safe_open import open_regular
from tests.unit.conftest import ClockBesideFiles

WEIGHTS = b"weights of cars"
NAME = ("acme/cars/1", "pkgA1", "weights.onnx")


class Place:
    """A cache on disk, and the files that are cached of it."""

    def __init__(self, root, *, writer_root=None, max_bytes=1 << 20, weights=WEIGHTS):
        self.root = root
        files = {"weights.onnx": weights, "other.bin": b"another one", "deep/er.bin": b"deeper"}
        files |= {
            "notes.txt": b"unhashed",
            "large.bin": b"x" * (MAX_FILE_BYTES + 1),
            "full.bin": b"y" * 60_000,
        }
        self.written = {
            one.handle: one
            for one in write_sample_cache(
                root,
                [SampleModel(model_id=NAME[0], packages={NAME[1]: files}, unhashed=frozenset({"notes.txt"}))],
                writer_root=writer_root,
            )
        }
        self.clock = ClockBesideFiles()
        roots = () if writer_root is None else (str(writer_root),)
        self.catalogue = DiskCatalogue(CatalogueSettings(root=root, alias_roots=roots), self.clock)
        self.held = HeldFiles(
            root=root,
            catalogue=self.catalogue,
            clock=self.clock,
            describe=describe_whole,
            max_bytes=max_bytes,
        )

    @property
    def link(self):
        return self.written["weights.onnx"].path

    @property
    def package(self):
        return self.link.parent

    @property
    def blob(self):
        return self.root / "shared-blobs" / self.written["weights.onnx"].md5

    @property
    def manifest(self):
        return self.package / "model_config.json"

    def hold(self, handle="weights.onnx", leaves=()):
        opened = self.catalogue.open_file_now(*NAME[:2], handle)
        content = os.pread(opened.descriptor, opened.size, 0)
        self.held.hold(replace(opened, sha256=sha256(content).hexdigest()), leaves)
        os.close(opened.descriptor)

    def find(self, handle="weights.onnx"):
        """The content that would be served."""
        held = self.held.find(*NAME[:2], handle)
        return None if held is None or not isinstance(held.file, HeldFile) else held.file.content


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("handle", "content"), [("weights.onnx", WEIGHTS), ("deep/er.bin", b"deeper"), ("notes.txt", b"unhashed")]
)
def test_a_small_file_is_served_from_memory_as_it_is_on_disk(handle, content, place):
    assert place.find(handle) is None
    place.hold(handle)
    assert place.find(handle) == content
    held = place.held.find(*NAME[:2], handle)
    opened = place.catalogue.open_file_now(*NAME[:2], handle)
    os.close(opened.descriptor)
    assert (held.file.identity, held.file.size, held.file.md5) == (opened.identity, opened.size, opened.md5)
    assert held.file.sha256 == sha256(content).hexdigest()


def rewrite(place):
    place.blob.write_bytes(WEIGHTS[::-1])


def rewrite_quietly(place):
    before = place.blob.stat()
    place.blob.write_bytes(WEIGHTS[::-1])
    os.utime(place.blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_blob(place):
    other = place.blob.with_name("other")
    other.write_bytes(WEIGHTS[::-1])
    other.replace(place.blob)


def point_elsewhere(place):
    place.link.unlink()
    place.link.symlink_to(place.root / "shared-blobs" / place.written["other.bin"].md5)


def put_a_copy_in_its_place(place):
    place.link.unlink()
    shutil.copy(place.blob, place.link)


def hard_link(place):
    place.link.unlink()
    os.link(place.blob, place.link)


def move_the_model(place):
    place.package.parent.rename(place.package.parent.with_name("elsewhere"))


CHANGES = [
    rewrite,
    rewrite_quietly,
    replace_blob,
    point_elsewhere,
    put_a_copy_in_its_place,
    hard_link,
    move_the_model,
    lambda place: os.truncate(place.blob, 3),
    lambda place: place.blob.unlink(),
    lambda place: place.link.unlink(),
    lambda place: shutil.rmtree(place.package),
    lambda place: place.root.rename(place.root.with_name("unmounted")),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_moved", [False, True])
def test_a_change_on_disk_is_seen_by_the_next_read(change, is_moved, tmp_path):
    # Where the links name another root, they cannot be followed, and other paths are checked.
    place = Place(tmp_path / "cache", writer_root=tmp_path / "as-the-writer-knew-it" if is_moved else None)
    place.hold()
    assert place.find() == WEIGHTS
    change(place)
    assert place.find() is None


def test_a_package_file_that_is_rewritten_is_not_served_from_memory(place):
    place.hold("notes.txt")
    place.written["notes.txt"].path.write_bytes(b"changed!")
    assert place.find("notes.txt") is None


def drop_from_manifest(place):
    place.manifest.write_text(place.manifest.read_text().replace("weights.onnx", "weights.gone"))


def put_another_package_beside_it(place):
    shutil.copytree(place.package, place.package.with_name(place.package.name.swapcase()), symlinks=True)


def make_the_package_a_link(place):
    aside = place.package.with_name("aside")
    place.package.rename(aside)
    place.package.symlink_to(aside)


@pytest.mark.parametrize("handle", ["weights.onnx", "notes.txt"])
@pytest.mark.parametrize("change", [drop_from_manifest, make_the_package_a_link])
def test_a_package_that_changed_around_a_file_is_seen_by_the_next_read(change, handle, place):
    place.hold(handle)
    assert place.find(handle) is not None
    change(place)
    assert place.held._held[NAME[0], NAME[1], handle].until > place.clock.steady
    before = place.catalogue.open_file
    place.catalogue.open_file = None  # it is not located from the root
    assert place.find(handle) is None
    place.catalogue.open_file = before


@pytest.mark.parametrize("change", [put_another_package_beside_it])
def test_what_no_look_can_see_is_seen_within_two_seconds(change, place):
    place.hold()
    change(place)
    place.clock.steady += HELD_SECONDS
    assert place.find() is None


def test_a_file_that_stays_as_it_is_is_held_for_as_long_as_it_is_asked_for(place):
    place.hold()
    held = place.held.find(*NAME)
    for _ in range(5):
        place.clock.steady += HELD_SECONDS
        assert place.held.find(*NAME) is held


def test_a_file_whose_records_moved_is_not_served_from_memory(place):
    leaf = Leaf(b"pin", b"value")
    place.hold(leaves=(leaf,))
    assert place.find() == WEIGHTS
    leaf.is_current = False
    assert place.find() is None


@pytest.mark.parametrize("ahead", [-3600.0, 0.0])
def test_a_file_that_changed_a_moment_ago_or_in_the_future_is_not_held(ahead, place):
    place.clock.wall = place.blob.stat().st_ctime + 1 + ahead
    place.hold()
    assert place.find() is None


def test_a_large_file_is_known_without_its_content_and_opened_anew_each_time(place):
    place.hold("large.bin")
    name = (*NAME[:2], "large.bin")
    assert place.held.find(*name).file.content is None
    for _ in range(2):
        known = place.held.reopen(*name)
        with os.fdopen(known.file.descriptor, "rb") as file:
            assert file.read() == b"x" * (MAX_FILE_BYTES + 1)
        opened = place.catalogue.open_file_now(*name)
        os.close(opened.descriptor)
        assert replace(known.file, descriptor=opened.descriptor, sha256=None) == opened
    blob = place.root / "shared-blobs" / place.written["large.bin"].md5
    blob.write_bytes(b"y" * (MAX_FILE_BYTES + 1))
    assert place.held.reopen(*name) is None


def test_a_file_whose_content_is_not_known_is_found_the_whole_way(place):
    opened = place.catalogue.open_file_now(*NAME[:2], "other.bin")
    place.held.hold(opened, ())
    os.close(opened.descriptor)
    assert place.find("other.bin") is None


@pytest.mark.parametrize("change", CHANGES)
def test_a_large_file_that_changed_on_disk_is_found_the_whole_way(change, tmp_path):
    place = Place(tmp_path / "cache", weights=b"w" * (MAX_FILE_BYTES + 1))
    place.hold()
    known = place.held.reopen(*NAME)
    os.close(known.file.descriptor)
    change(place)
    assert place.held.reopen(*NAME) is None


def test_a_file_that_was_exchanged_since_it_was_found_is_not_held(place):
    opened = place.catalogue.open_file_now(*NAME)
    os.close(opened.descriptor)
    replace_blob(place)
    place.held.hold(replace(opened, sha256="0" * 64), ())
    assert place.find() is None


def test_content_that_is_not_what_was_measured_is_not_held(place):
    # A store through a memory mapping of the file can change the content without changing any time.
    opened = place.catalogue.open_file_now(*NAME)
    place.held.hold(replace(opened, sha256=sha256(WEIGHTS[::-1]).hexdigest()), ())
    os.close(opened.descriptor)
    assert place.find() is None


def test_what_was_not_asked_for_longest_makes_room(tmp_path):
    place = Place(tmp_path, max_bytes=1 << 20)
    place.hold()
    place.hold("full.bin")
    place.held._max_bytes = place.held._bytes + 5  # no room for another one beside these two
    assert place.find() == WEIGHTS
    place.hold("other.bin")
    assert place.find("full.bin") is None
    assert place.find() == WEIGHTS
    assert place.find("other.bin") == b"another one"


def test_no_memory_holds_nothing(tmp_path):
    place = Place(tmp_path, max_bytes=0)
    place.hold()
    assert place.find() is None


def test_no_descriptor_stays_open(place):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for handle in ("weights.onnx", "other.bin", "large.bin"):
        place.hold(handle)
        place.find(handle)
    place.clock.steady += HELD_SECONDS
    place.find()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_blob_is_found_by_its_digest_within_its_package_for_as_long_as_it_is_cached(place):
    model, package, handle = NAME
    md5 = place.written["weights.onnx"].md5
    assert place.held.find_handle(model, package, md5) is None
    place.hold()
    assert place.held.find_handle(model, package, md5) == handle
    assert place.held.find_handle(model, "pkgB2", md5) is None
    assert place.held.find_handle(model, package, "0" * 32) is None
    place.link.unlink()
    assert place.held.find(*NAME) is None
    assert place.held.find_handle(model, package, md5) is None


def test_what_was_seen_in_one_iteration_serves_all_of_it_and_no_other(place):
    place.hold()
    looks = SeenOnDisk()
    assert place.held.find(*NAME, looks) is not None
    place.link.unlink()
    assert place.held.find(*NAME, looks) is not None
    assert place.held.find(*NAME, SeenOnDisk()) is None


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize(
    "change",
    [rewrite_quietly, replace_blob, lambda place: os.utime(place.blob), lambda place: place.blob.unlink()],
)
def test_a_blob_that_changes_between_the_look_and_the_open_is_not_reopened(
    change, is_large, tmp_path, monkeypatch
):
    """Device, inode and size may all be the same: what was opened is compared by its times as well."""
    place = Place(tmp_path / "cache", weights=b"w" * (MAX_FILE_BYTES + 1) if is_large else WEIGHTS)
    place.hold()
    opened, before = [], len(list(Path("/proc/self/fd").iterdir()))

    def open_changed(*name, **how):
        change(place)
        opened.append(name)
        return open_regular(*name, **how)

    monkeypatch.setattr("gateway.resource.held_files.open_regular", open_changed)
    assert place.held.reopen(*NAME) is None
    assert len(opened) == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_of_the_package_alone_is_not_opened_by_a_digest(place):
    place.hold("notes.txt")
    assert place.held.reopen(*NAME[:2], "notes.txt") is None


def test_a_reopened_blob_stands_on_the_records_of_the_held_one(place):
    leaf = Leaf(b"pin", b"value")
    place.hold(leaves=(leaf,))
    known = place.held.reopen(*NAME)
    os.close(known.file.descriptor)
    assert known.leaves == (leaf,)
    leaf.is_current = False
    assert place.held.reopen(*NAME) is None
