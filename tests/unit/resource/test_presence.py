"""An empty cache is distinguished from a missing one, and nothing is reported absent before that is known."""

from __future__ import annotations

import os
import shutil
from typing import ClassVar

import pytest

from gateway.adapters.seen_cache_file import SeenCacheFile
from gateway.model.errors import Reason, Unavailable
from gateway.model.presence import Seen
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.manifests import Manifests
from gateway.resource.scan import Looking, scan


@pytest.fixture
def seen(tmp_path):
    return SeenCacheFile(tmp_path / "state" / "seen-cache.json")


@pytest.fixture
def cache(cache, seen):
    """A cache whose catalogue records what it saw, as that of a gateway does."""
    cache.catalogue = DiskCatalogue(CatalogueSettings(root=cache.root), cache.clock, seen=seen)
    return cache


@pytest.fixture
def restart(cache, seen):
    """Restart with the same state folder, as a gateway that was stopped while the volume was unmounted."""

    def anew():
        cache.catalogue.close()
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=cache.root), cache.clock, seen=seen)
        cache.refresh()

    return anew


def verify_undecided(cache):
    """No list is given, and nothing is reported absent."""
    for ask in (
        cache.catalogue.models,
        cache.catalogue.listed,
        lambda: cache.open("nothing.bin"),
        lambda: cache.open("weights.onnx", package="none"),
        lambda: cache.listing("acme/none/1", "p1"),
        lambda: cache.packages("acme/none/1"),
        lambda: cache.find_blob("acme/none/1", "p1", "0" * 32),
    ):
        with pytest.raises(Unavailable) as failure:
            ask()
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE


def empty(folder):
    for one in folder.iterdir():
        shutil.rmtree(one)


def become_another(folder):
    """Replace the folder at this path: what remains of a mount point when its volume is unmounted."""
    folder.rename(folder.with_name("away"))
    folder.mkdir(parents=True)


class TestEmpty:
    def test_a_fresh_root_is_an_empty_cache(self, cache, tmp_path):
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=fresh), cache.clock, seen=seen_of(tmp_path))
        cache.refresh()
        assert cache.catalogue.models() == ()
        assert cache.open() is None

    @pytest.mark.parametrize(
        "folders", [["models-cache"], ["models-cache", "shared-blobs"], ["shared-blobs"]]
    )
    def test_so_is_one_in_which_the_engine_made_its_folders(self, cache, tmp_path, folders):
        fresh = tmp_path / "fresh"
        for folder in folders:
            (fresh / folder).mkdir(parents=True)
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=fresh), cache.clock, seen=seen_of(tmp_path))
        cache.refresh()
        assert cache.catalogue.models() == ()
        assert cache.open() is None

    def test_a_cache_that_was_emptied_where_it_lies_is_empty(self, cache, restart):
        cache.refresh()
        empty(cache.models)
        cache.refresh()
        assert cache.catalogue.models() == ()
        restart()
        assert cache.catalogue.models() == ()
        assert cache.open() is None

    def test_another_root_that_is_set_is_a_fresh_one(self, cache, tmp_path, seen):
        cache.refresh()
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=fresh), cache.clock, seen=seen)
        cache.refresh()
        assert cache.catalogue.models() == ()

    def test_what_was_seen_can_be_forgotten_by_an_operator(self, cache, seen, tmp_path):
        cache.refresh()
        shutil.rmtree(cache.models)
        cache.refresh()
        verify_undecided(cache)
        (tmp_path / "state" / "seen-cache.json").unlink()
        cache.refresh()
        assert cache.catalogue.models() == ()
        assert cache.open() is None


def seen_of(tmp_path):
    return SeenCacheFile(tmp_path / "other-state" / "seen-cache.json")


class TestGone:
    """Missing folders do not count as an emptied cache."""

    AWAY: ClassVar = {
        "the root": lambda cache: cache.root.rename(cache.root.with_name("away")),
        "models-cache": lambda cache: cache.models.rename(cache.root / "away"),
        "shared-blobs": lambda cache: cache.blobs.rename(cache.root / "away"),
        "an unmounted root": lambda cache: become_another(cache.root),
        "a root whose folders a writer made anew": lambda cache: (
            become_another(cache.root),
            cache.models.mkdir(),
            cache.blobs.mkdir(),
        ),
        "one in which there are blobs of somebody": lambda cache: (
            become_another(cache.root),
            cache.models.mkdir(),
            cache.blobs.mkdir(),
            (cache.blobs / ("a" * 32)).touch(),
        ),
        "unmounted blobs": lambda cache: become_another(cache.blobs),
    }

    @pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
    def test_while_it_serves_and_before_it_was_looked_at_again(self, cache, away):
        cache.refresh()
        assert cache.open("nothing.bin") is None
        away(cache)
        for ask in (
            lambda: cache.open("nothing.bin"),
            lambda: cache.listing("acme/none/1", "p1"),
            lambda: cache.packages("acme/none/1"),
        ):
            with pytest.raises(Unavailable):
                ask()

    @pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
    def test_once_it_was_looked_at_again_and_after_a_restart(self, cache, away, restart):
        cache.refresh()
        away(cache)
        cache.refresh()
        verify_undecided(cache)
        assert cache.catalogue.state().survey.problem
        restart()
        verify_undecided(cache)

    @pytest.mark.parametrize("away", AWAY.values(), ids=AWAY)
    def test_a_command_says_so_too(self, cache, away, seen):
        cache.refresh()
        away(cache)
        looking = Looking(manifests=Manifests(cache.clock, reads_all_here=True), now=cache.clock.now())
        survey = scan(cache.root, {}, looking, seen)
        cache.refresh()
        assert (survey.is_readable, survey.problem) == (False, cache.catalogue.state().survey.problem)

    def test_it_is_served_again_once_it_is_back(self, cache):
        cache.refresh()
        away = cache.root.with_name("away")
        cache.root.rename(away)
        cache.refresh()
        verify_undecided(cache)
        away.rename(cache.root)
        assert cache.open() == b"weights of cars"
        cache.refresh()
        assert cache.catalogue.models() == (cache.model,)
        assert cache.open("nothing.bin") is None

    def test_another_volume_with_models_in_its_place_is_served(self, cache):
        cache.refresh()
        become_another(cache.root)
        cache.write({"weights.onnx": b"of the other"}, model="other/1")
        cache.refresh()
        assert cache.catalogue.models() == ("other/1",)
        assert cache.open() is None
        assert cache.open(model="other/1") == b"of the other"

    def test_a_folder_that_came_since_the_last_scan_is_no_reason_to_doubt(self, cache, tmp_path):
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=fresh), cache.clock)
        cache.refresh()
        (fresh / "models-cache").mkdir()
        (fresh / "shared-blobs").mkdir()
        assert cache.open() is None


class TestFile:
    SEEN = Seen(path="/cache", root=(1, 2**64 - 1), blobs=(1, 3))

    def test_what_was_noted_is_found_by_another_process(self, tmp_path):
        for seen in (self.SEEN, Seen(path="/cache", root=(1, 2), blobs=None)):
            SeenCacheFile(tmp_path / "s.json").note(seen)
            assert SeenCacheFile(tmp_path / "s.json").load() == seen

    def test_a_path_that_is_no_text_is_kept(self, tmp_path):
        seen = Seen(path="/c\udcff", root=(1, 2), blobs=None)
        SeenCacheFile(tmp_path / "s.json").note(seen)
        assert SeenCacheFile(tmp_path / "s.json").load() == seen

    def test_it_is_written_only_when_it_moved(self, tmp_path):
        file = SeenCacheFile(tmp_path / "s.json")
        file.note(self.SEEN)
        before = (tmp_path / "s.json").stat().st_ino
        file.note(self.SEEN)
        assert (tmp_path / "s.json").stat().st_ino == before

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": 1}', b"\xff", b"[" * 100_000])
    def test_what_does_not_parse_says_nothing(self, tmp_path, content):
        (tmp_path / "s.json").write_bytes(content)
        assert SeenCacheFile(tmp_path / "s.json").load() is None

    def test_a_folder_that_cannot_be_used_is_told(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(Unavailable):
            SeenCacheFile(tmp_path / "file" / "s.json").note(self.SEEN)
        (tmp_path / "folder").mkdir()
        with pytest.raises(Unavailable):
            SeenCacheFile(tmp_path / "folder").load()

    def test_a_list_is_given_although_it_cannot_be_kept_where_it_was_seen(self, cache, tmp_path):
        (tmp_path / f"s.{os.getpid()}").mkdir()  # the first write fails
        seen = SeenCacheFile(tmp_path / "s.json")
        cache.catalogue = DiskCatalogue(CatalogueSettings(root=cache.root), cache.clock, seen=seen)
        cache.refresh()
        assert cache.catalogue.models() == (cache.model,)
