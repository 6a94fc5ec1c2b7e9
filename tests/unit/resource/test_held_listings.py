"""Listings in memory: shown only while all that they were made of is the same, for two seconds at most."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest
from msgspec.structs import replace

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.model.access import Page
from gateway.model_metadata.local_metadata import BOUNDS
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.disk_checks import SeenOnDisk
from gateway.resource.held_listings import HELD_SECONDS, MAX_CHECKS, HeldListings
from gateway.resource.naming import model_directory
from tests.unit.conftest import ClockBesideFiles

MODEL = "acme/cars/1"
PAGE = Page(after=None, limit=100)


class Place:
    """A cache on disk, and what is held of it."""

    def __init__(self, root, *, files=3, packages=2, writer_root=None):
        self.root = root
        contents = {f"f{number:03}.bin": b"content %d" % number for number in range(files)}
        named = {f"p{number:03}": contents | {"notes.txt": b"unhashed"} for number in range(packages)}
        sample = SampleModel(model_id=MODEL, packages=named, unhashed=frozenset({"notes.txt"}))
        write_sample_cache(root, [sample], writer_root=writer_root)
        self.clock = ClockBesideFiles()
        roots = () if writer_root is None else (str(writer_root),)
        self.catalogue = DiskCatalogue(CatalogueSettings(root=root, alias_roots=roots), self.clock)
        self.held = HeldListings(root=root, clock=self.clock, max_bytes=1 << 20)
        self.folder = root / "models-cache" / model_directory(MODEL)

    def hold(self, page=PAGE, *, between=None):
        before = self.held.checks_of_package(MODEL, "p000")
        listing = asyncio.run(self.catalogue.listing(MODEL, "p000", after=page.after, limit=page.limit))
        if between is not None:
            between(self)
        self.held.hold_listing(listing, page, before)
        return listing

    def find(self, page=PAGE):
        return self.held.find_listing(MODEL, "p000", page, SeenOnDisk())

    def hold_packages(self, *, between=None):
        before = self.held.checks_of_model(MODEL)
        packages = asyncio.run(self.catalogue.packages(MODEL))
        if between is not None:
            between(self)
        self.held.hold_packages(MODEL, packages, before)
        return packages

    def find_packages(self):
        return self.held.find_packages(MODEL, SeenOnDisk())

    def hold_manifests(self, *, bounds=BOUNDS, between=None):
        before = self.held.checks_of_model(MODEL)
        found = asyncio.run(self.catalogue.raw_packages(MODEL, bounds))
        if between is not None:
            between(self)
        self.held.hold_manifests(MODEL, found, before)
        return found

    def find_manifests(self):
        return self.held.find_manifests(MODEL, SeenOnDisk())

    @property
    def blob(self):
        return (self.folder / "p000" / "f000.bin").resolve()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "cache")


def test_a_listing_is_shown_as_it_was_read(place):
    assert place.find() is None
    listing = place.hold()
    assert place.find() is listing
    assert len(listing.files) == 4


def test_packages_are_shown_as_they_were_read(place):
    assert place.find_packages() is None
    assert place.hold_packages() == place.find_packages() == ("p000", "p001")


def test_pages_and_packages_and_models_are_kept_apart(place):
    place.hold()
    assert place.find(Page(after=None, limit=99)) is None
    assert place.find(Page(after="f000.bin", limit=100)) is None
    assert place.held.find_listing(MODEL, "p001", PAGE, SeenOnDisk()) is None
    assert place.held.find_listing("acme/cars/2", "p000", PAGE, SeenOnDisk()) is None
    assert place.find_packages() is None


def rewrite_quietly(place):
    before = place.blob.stat()
    place.blob.write_bytes(b"CONTENT 0")
    os.utime(place.blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_file(place):
    other = place.blob.with_name("other")
    other.write_bytes(b"CONTENT 0")
    other.replace(place.blob)


def link_elsewhere(place):
    link = place.folder / "p000" / "f000.bin"
    other = (place.folder / "p000" / "f001.bin").resolve()
    link.unlink()
    link.symlink_to(other)


def rewrite_manifest(place):
    manifest = place.folder / "p000" / "model_config.json"
    manifest.write_text(manifest.read_text().replace("f000.bin", "f999.bin"))


def become_link(path):
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


OF_A_PACKAGE = [
    rewrite_manifest,
    lambda place: (place.folder / "p000" / "model_config.json").unlink(),
    lambda place: become_link(place.folder / "p000"),
    lambda place: become_link(place.folder),
    lambda place: shutil.rmtree(place.folder / "p000"),
    lambda place: shutil.copytree(place.folder / "p000", place.folder / "P000", symlinks=True),
]
OF_A_FILE = [
    rewrite_quietly,
    replace_file,
    link_elsewhere,
    lambda place: os.truncate(place.blob, 3),
    lambda place: place.blob.unlink(),
    lambda place: (place.folder / "p000" / "f000.bin").unlink(),
]


@pytest.mark.parametrize("change", OF_A_PACKAGE + OF_A_FILE)
def test_what_changed_in_a_package_ends_its_listing(change, place):
    place.hold()
    change(place)
    assert place.find() is None
    assert len(place.held.memory) == 0


@pytest.mark.parametrize("change", OF_A_PACKAGE)
def test_what_changed_in_a_model_ends_its_list_of_packages(change, place):
    place.hold_packages()
    change(place)
    assert place.find_packages() is None


@pytest.mark.parametrize("change", OF_A_PACKAGE)
def test_what_changed_while_it_was_read_is_not_held(change, place):
    place.hold(between=change)
    assert len(place.held.memory) == 0
    assert place.find() is None


@pytest.mark.parametrize("change", OF_A_PACKAGE[1:])
def test_a_package_that_changed_while_a_model_was_read_is_not_held(change, place):
    place.hold_packages(between=change)
    assert place.find_packages() is None


def test_what_changed_a_moment_ago_is_not_held(place):
    place.clock.wall = place.blob.stat().st_ctime + 1
    place.hold()
    place.hold_packages()
    assert (place.find(), place.find_packages()) == (None, None)


def test_it_is_made_anew_after_two_seconds_whatever_the_checks_say(place):
    place.hold()
    place.hold_packages()
    place.clock.steady += HELD_SECONDS - 0.001
    assert None not in (place.find(), place.find_packages())
    place.clock.steady += 0.001
    assert (place.find(), place.find_packages()) == (None, None)


def test_links_for_another_root_are_not_followed_and_such_a_listing_is_not_held(tmp_path):
    place = Place(tmp_path / "cache", writer_root=tmp_path / "as-the-writer-knew-it")
    assert len(place.hold().files) == 4
    assert place.find() is None


@pytest.mark.parametrize(("files", "is_held"), [(MAX_CHECKS - 4, True), (MAX_CHECKS - 3, False)])
def test_only_a_listing_with_few_checks_is_held(files, is_held, tmp_path):
    """Three for the package, one for the file without a hash, and one for each other file."""
    place = Place(tmp_path / "cache", files=files, packages=1)
    place.hold()
    assert (place.find() is not None) is is_held


@pytest.mark.parametrize(("packages", "is_held"), [(31, True), (32, False)])
def test_only_a_model_with_few_packages_is_held(packages, is_held, tmp_path):
    place = Place(tmp_path / "cache", files=1, packages=packages)
    place.hold_packages()
    assert (place.find_packages() is not None) is is_held


def test_a_model_that_is_not_there_is_not_held(place):
    shutil.rmtree(place.folder)
    assert place.hold_packages() == ()
    assert place.find_packages() is None
    assert place.held.checks_of_model(MODEL) == place.held.checks_of_package(MODEL, "p000") == ()


def test_what_was_seen_in_one_iteration_serves_all_of_it_and_no_other(place):
    listing, looks = place.hold(), SeenOnDisk()
    assert place.held.find_listing(MODEL, "p000", PAGE, looks) is listing
    rewrite_quietly(place)
    assert place.held.find_listing(MODEL, "p000", PAGE, looks) is listing
    assert place.find() is None


# The manifests of a model's packages, for the engine's metadata.


def test_manifests_are_given_as_they_were_read(place):
    assert place.find_manifests() is None
    found = place.hold_manifests()
    assert place.find_manifests() is found
    assert [one.package for one in found.packages] == ["p000", "p001"]
    assert place.find_packages() is None
    assert place.held.find_manifests("acme/cars/2", SeenOnDisk()) is None


@pytest.mark.parametrize("change", OF_A_PACKAGE + OF_A_FILE)
def test_what_changed_in_a_package_ends_what_is_known_of_its_manifest(change, place):
    place.hold_manifests()
    change(place)
    assert place.find_manifests() is None


def test_manifests_are_read_anew_after_two_seconds(place):
    place.hold_manifests()
    place.clock.steady += HELD_SECONDS
    assert place.find_manifests() is None


def test_manifests_with_many_files_are_not_held(tmp_path):
    place = Place(tmp_path / "cache", files=MAX_CHECKS // 2)
    place.hold_manifests()
    assert place.find_manifests() is None


def test_what_had_to_be_left_out_is_looked_for_each_time(place):
    place.hold_manifests(bounds=replace(BOUNDS, packages=1))
    assert place.find_manifests() is None


@pytest.mark.parametrize("change", [OF_A_FILE[-1], OF_A_PACKAGE[1], OF_A_PACKAGE[-1]])
def test_manifests_of_what_changed_while_they_were_read_are_not_held(change, place):
    place.hold_manifests(between=change)
    assert place.find_manifests() is None
