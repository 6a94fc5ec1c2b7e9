"""The catalogue answers with what is on disk now, whatever the last scan found."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable
from gateway.model.listings import FileEntry, PackageListing
from gateway.model.names import ModelId
from gateway.model.presence import NothingSeen
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.manifests import Manifests
from gateway.resource.naming import model_directory
from gateway.resource.scan import Looking, scan
from gateway.resource.scanner import Scanner

LONG_HANDLES = ("/".join(["d"] * 16 + ["deep.bin"]), "/".join(["d" * 200, "e" * 200, "f" * 111]))


def _refresh(cache, *known):
    asyncio.run(cache.catalogue.refresh([ModelId(model) for model in known]))


def _no_list(cache):
    for ask in (cache.catalogue.models, cache.catalogue.listed):
        with pytest.raises(Unavailable) as failure:
            ask()
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE


def _undecided(cache, model=None):
    """A file that cannot be seen now is not reported as absent."""
    md5 = cache.written["weights.onnx"].md5
    name = (model or cache.model, cache.package)
    for ask in (
        lambda: cache.open_file(*name, "weights.onnx"),
        lambda: cache.listing(*name),
        lambda: cache.find_blob(*name, md5),
        lambda: cache.packages(name[0]),
        lambda: cache.wait(cache.catalogue.has(*name, "weights.onnx")),
        lambda: cache.wait(cache.catalogue.has(*name, None)),
    ):
        with pytest.raises(Unavailable) as failure:
            ask()
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE


def _refused(cache, **asked):
    with pytest.raises(Refusal) as refusal:
        cache.open(**asked)
    assert refusal.value.reason == Reason.UNSERVABLE


def test_an_open_file_is_what_the_names_said_and_carries_its_identity(cache):
    found = cache.open_file(cache.model, cache.package, "weights.onnx")
    stat = cache.blob_of("weights.onnx").stat()
    os.close(found.descriptor)
    assert (found.model, found.package, found.handle) == (cache.model, cache.package, "weights.onnx")
    assert (found.md5, found.size) == (cache.written["weights.onnx"].md5, 15)
    assert found.identity == (stat.st_dev, stat.st_ino, 15, stat.st_mtime_ns, stat.st_ctime_ns)


def test_an_unhashed_file_has_no_digest(cache):
    found = cache.open_file(cache.model, cache.package, "notes.txt")
    os.close(found.descriptor)
    assert (found.md5, found.size) == (None, 9)


def test_a_listing_has_the_files_in_the_order_of_their_handles(cache):
    files = cache.written
    assert cache.listing(cache.model, cache.package) == PackageListing(
        model=cache.model,
        package=cache.package,
        files=tuple(
            FileEntry(handle=handle, size=files[handle].size, md5=files[handle].md5)
            for handle in sorted(files)
        ),
    )


def test_what_was_never_there_is_none(cache):
    assert cache.open(model="acme/cars/2") is None
    assert cache.open(package="pkgZ") is None
    assert cache.open("nothing.onnx") is None
    assert cache.handles(model="acme/cars/2") is None
    assert cache.handles(package="pkgZ") is None
    assert cache.packages("acme/cars/2") == ()
    assert cache.find_blob("acme/cars/2", cache.package, cache.written["weights.onnx"].md5) is None


def test_the_packages_of_a_model_are_sorted_and_servable(cache):
    for package in ("zz", "B2", "half"):
        cache.write({"weights.onnx": b"x"}, package=package)
    (cache.folder / "half" / "model_config.json").unlink()
    assert cache.packages(cache.model) == ("B2", "pkgA1", "zz")


def test_packages_that_differ_only_by_case_are_both_refused(cache):
    cache.write({"weights.onnx": b"x"}, package="PKGA1")
    assert cache.packages(cache.model) == ()
    for package in ("pkgA1", "PKGA1"):
        assert cache.handles(package=package) is None
        _refused(cache, package=package)


def test_a_package_that_is_a_link_to_another_models_package_is_refused(cache):
    cache.write({"weights.onnx": b"theirs"}, model="other/1", package="theirs")
    (cache.folder / "mine").symlink_to(cache.models / model_directory("other/1") / "theirs")
    assert cache.packages(cache.model) == ("pkgA1",)
    assert cache.handles(package="mine") is None
    _refused(cache, package="mine")


def test_a_package_whose_manifest_names_another_model_is_refused(cache):
    cache.write({"weights.onnx": b"theirs"}, model="other/1", package="theirs")
    shutil.copytree(
        cache.models / model_directory("other/1") / "theirs", cache.folder / "copied", symlinks=True
    )
    assert cache.packages(cache.model) == ("pkgA1",)
    assert cache.handles(package="copied") is None
    assert cache.find_blob(cache.model, "copied", cache.written["weights.onnx"].md5) is None
    _refused(cache, package="copied")


def test_a_v1_directory_serves_nothing(cache):
    cache.folder.rename(cache.models / "acme-cars-1-31d2d451")
    _refresh(cache, cache.model)
    assert cache.catalogue.models() == ()
    assert cache.open() is None
    assert cache.open(model="acme-cars-1-31d2d451") is None


@pytest.mark.parametrize(
    "model", ["../auto-resolution-cache", "auto-resolution-cache", "../shared-blobs", ".."]
)
def test_the_other_caches_cannot_be_reached_by_any_id(cache, model):
    assert cache.packages(model) == ()
    assert cache.open(model=model) is None


class TestBlobs:
    """A digest is found through one package only (I2)."""

    def test_a_blob_is_found_by_the_file_that_links_it(self, cache):
        md5 = cache.written["extra/labels.bin"].md5
        assert cache.find_blob(cache.model, cache.package, md5) == "extra/labels.bin"

    def test_a_blob_that_another_package_links_is_not_found(self, cache):
        (theirs,) = cache.write({"weights.onnx": b"theirs"}, package="other")
        assert cache.find_blob(cache.model, "other", theirs.md5) == "weights.onnx"
        assert cache.find_blob(cache.model, cache.package, theirs.md5) is None

    def test_one_blob_is_found_in_each_package_that_links_it(self, cache):
        cache.write({"same.onnx": b"weights of cars"}, model="other/1", package="theirs")
        md5 = cache.written["weights.onnx"].md5
        assert cache.find_blob("other/1", "theirs", md5) == "same.onnx"
        assert cache.find_blob(cache.model, cache.package, md5) == "weights.onnx"

    def test_a_manifest_alone_finds_no_blob_without_the_link(self, cache):
        """A manifest lists another tenant's digest, but nothing in the package links it."""
        (theirs,) = cache.write({"weights.onnx": b"theirs"}, model="other/1", package="theirs")
        text = cache.manifest.read_text().replace(cache.written["weights.onnx"].md5, theirs.md5)
        cache.manifest.write_text(text)
        assert cache.find_blob(cache.model, cache.package, theirs.md5) is None
        _refused(cache)

    def test_the_first_of_two_files_with_one_blob_is_found_unless_it_is_spoilt(self, cache):
        cache.write({"a.bin": b"same", "b.bin": b"same"}, package="twice")
        (md5,) = {file.md5 for file in cache.listing(cache.model, "twice").files}
        assert cache.find_blob(cache.model, "twice", md5) == "a.bin"
        (cache.folder / "twice" / "a.bin").unlink()
        assert cache.find_blob(cache.model, "twice", md5) == "b.bin"


class TestAliasRoots:
    """Links are absolute, and a volume may be mounted at another path than its writer had."""

    @pytest.fixture
    def moved(self, cache):
        cache.write({"weights.onnx": b"moved"}, package="moved", writer_root=Path("/data/engine"))
        return cache

    def test_a_link_of_an_unknown_writer_is_refused(self, moved):
        _refused(moved, package="moved")

    @pytest.mark.parametrize("alias", ["/data/engine", "/data/engine/"])
    def test_a_link_of_a_named_writer_is_served_from_our_own_blobs(self, moved, alias):
        settings = CatalogueSettings(root=moved.root, alias_roots=("/elsewhere", alias))
        moved.catalogue = DiskCatalogue(settings, moved.clock)
        assert moved.open(package="moved") == b"moved"
        assert moved.open() == b"weights of cars"

    def test_another_root_on_this_machine_is_never_opened(self, moved, tmp_path):
        """The alias exists here and holds a blob of that name: it is compared as text only."""
        other = tmp_path / "other"
        moved.write({"weights.onnx": b"right"}, package="named", writer_root=other)
        (found,) = moved.listing(moved.model, "named").files or (None,)
        assert found is None
        (other / "shared-blobs").mkdir(parents=True)
        settings = CatalogueSettings(root=moved.root, alias_roots=(str(other),))
        moved.catalogue = DiskCatalogue(settings, moved.clock)
        (entry,) = moved.listing(moved.model, "named").files
        (other / "shared-blobs" / entry.md5).write_bytes(b"wrong")
        assert moved.open(package="named") == b"right"

    @pytest.mark.parametrize("alias", ["", "relative", "/", "/a/../b", "/a//b", "./a"])
    def test_an_alias_that_is_no_plain_absolute_path_stops_the_start(self, tmp_path, alias):
        with pytest.raises(Misconfigured):
            CatalogueSettings(root=tmp_path, alias_roots=(alias,))

    def test_a_relative_root_stands_for_its_absolute_path(self, cache, monkeypatch):
        monkeypatch.chdir(cache.root.parent)
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=Path("cache")), cache.clock)
        assert cache.open() == b"weights of cars"


class TestRefresh:
    """The list of models, as of the last scan."""

    def test_a_model_that_comes_or_goes_moves_it_once(self, cache):
        assert cache.catalogue.has_moved()
        assert not cache.catalogue.has_moved()
        cache.write({"weights.onnx": b"new"}, model="new/1")
        os.utime(cache.models, ns=(0, 0))  # another change time, however coarse the clock
        assert cache.catalogue.has_moved()
        shutil.rmtree(cache.root)
        with pytest.raises(Unavailable):
            cache.catalogue.has_moved()

    def test_before_the_first_scan_there_is_no_list_and_files_are_served(self, cache):
        _no_list(cache)
        assert cache.open() == b"weights of cars"

    def test_a_scan_lists_the_models_and_says_how_long_it_took(self, cache):
        _refresh(cache)
        state = cache.catalogue.state()
        assert cache.catalogue.models() == ("acme/cars/1",)
        assert (state.root, state.seconds) == (str(cache.root), 0.0)

    def test_a_scan_that_finds_the_same_models_keeps_the_very_list(self, cache):
        _refresh(cache)
        models = cache.catalogue.models()
        _refresh(cache)
        assert cache.catalogue.models() is models

    def test_what_came_after_the_scan_is_served_and_not_yet_listed(self, cache):
        _refresh(cache)
        cache.write({"weights.onnx": b"new"}, model="new/1")
        assert cache.catalogue.models() == ("acme/cars/1",)
        assert cache.open(model="new/1") == b"new"
        _refresh(cache)
        assert cache.catalogue.models() == ("acme/cars/1", "new/1")

    def test_what_went_after_the_scan_is_listed_and_not_served(self, cache):
        _refresh(cache)
        shutil.rmtree(cache.folder)
        assert cache.catalogue.models() == ("acme/cars/1",)
        assert cache.packages(cache.model) == ()
        assert cache.open() is None

    def test_a_known_id_names_a_directory_whose_manifest_does_not(self, cache):
        cache.manifest.write_text('{"package_artifacts": []}')
        _refresh(cache)
        assert cache.catalogue.models() == ()
        _refresh(cache, cache.model, "zoo/1")
        assert cache.catalogue.models() == (cache.model,)

    def test_a_root_that_vanishes_and_returns_is_followed(self, cache):
        _refresh(cache)
        away = cache.root.with_name("away")
        cache.root.rename(away)
        _undecided(cache)
        _refresh(cache)
        _no_list(cache)
        _undecided(cache)
        assert not cache.catalogue.state().survey.is_root_present
        away.rename(cache.root)
        assert cache.open() == b"weights of cars"
        _refresh(cache)
        assert cache.catalogue.models() == ("acme/cars/1",)

    def test_a_root_that_is_replaced_by_another_is_served_as_it_is_now(self, cache):
        cache.root.rename(cache.root.with_name("old"))
        cache.write({"weights.onnx": b"weights of the other root"})
        assert cache.open() == b"weights of the other root"

    def test_a_missing_root_at_the_start_does_not_stop_it(self, cache, tmp_path):
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=tmp_path / "gone"), cache.clock)
        _refresh(cache)
        _no_list(cache)
        assert cache.catalogue.state().survey.problem
        _undecided(cache)

    def test_scans_asked_for_at_once_all_end_with_a_list(self, cache):
        async def scan_together():
            await asyncio.gather(*(cache.catalogue.refresh([]) for _ in range(3)))

        asyncio.run(scan_together())
        assert cache.catalogue.models() == ("acme/cars/1",)


@pytest.fixture
def with_long_handles(cache):
    """Two files that the engine may have written, under handles that are too long here."""
    document = json.loads(cache.manifest.read_text())
    [listed, *_] = [one for one in document["package_artifacts"] if one["md5_hash"]]
    for handle in LONG_HANDLES:
        link = cache.package_folder / handle
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(cache.blobs / listed["md5_hash"])
        document["package_artifacts"].append({**listed, "file_handle": handle})
    cache.manifest.write_text(json.dumps(document))
    return cache


def test_a_handle_that_is_too_long_costs_its_own_file_only(with_long_handles):
    cache, others = with_long_handles, sorted(with_long_handles.written)
    assert cache.handles() == others
    assert cache.packages(cache.model) == (cache.package,)
    assert all(cache.open(handle) is not None for handle in others)
    assert all(cache.open(handle) is None for handle in LONG_HANDLES)


def test_a_handle_that_is_too_long_is_reported_with_its_package(with_long_handles):
    cache = with_long_handles
    looking = Looking(manifests=Manifests(cache.clock), now=cache.clock.time)
    scanner = Scanner(cache.root, manifests=looking.manifests, seen=NothingSeen())
    for survey in (scan(cache.root, {}, looking), scanner.look({}, cache.clock.time)):
        assert (survey.models, survey.packages) == ((cache.model,), 1)
        assert (survey.unservable_files, survey.unservable_packages) == (2, 0)
        assert [one.where for one in survey.skipped] == [f"{cache.folder.name}/{cache.package}"]


def test_nothing_below_the_root_is_written(cache):
    def snapshot():
        return {path: path.lstat().st_mtime_ns for path in cache.root.rglob("*")}

    before = snapshot()
    _refresh(cache)
    cache.open()
    cache.handles()
    assert snapshot() == before
