"""Looking again only where something moved, and seeing what a full scan would see."""

from __future__ import annotations

import asyncio
import json
import os
import shutil

import pytest

from gateway.model.presence import NothingSeen
from gateway.resource import scanner as scanner_module
from gateway.resource.manifests import Manifests
from gateway.resource.naming import model_directory
from gateway.resource.scan import Looking
from gateway.resource.scan import scan as scan_cache
from gateway.resource.scanner import Scanner


class _Always:
    """A clock by which every change time is old enough to be believed."""

    def now(self):
        return 4e9


def scan(root, known):
    return scan_cache(root, known, Looking(manifests=Manifests(_Always(), reads_all_here=True), now=4e9))


def new_scanner(root):
    return Scanner(root, manifests=Manifests(_Always()), seen=NothingSeen())


LATER = 60.0  # seconds after which every change time is old enough to be believed


@pytest.fixture
def opened(monkeypatch):
    """The directories that were opened since the list was cleared."""
    names = []

    original = scanner_module.survey_directory

    def survey(name, **about):
        names.append(name)
        return original(name, **about)

    monkeypatch.setattr(scanner_module, "survey_directory", survey)
    monkeypatch.setattr(scanner_module, "REFRESHED_PER_LOOK", 0)
    return names


@pytest.fixture
def look(cache):
    scanner = new_scanner(cache.root)

    def once(*known, later=LATER):
        return scanner.look({model_directory(model): model for model in known}, cache.clock.time + later)

    return once


def test_the_first_look_is_a_full_scan(cache, look):
    cache.write({"a.bin": b"a"}, model="zoo/1")
    (cache.models / "foreign").mkdir()
    assert look() == scan(cache.root, {})


def test_what_did_not_move_is_not_opened_again(cache, look, opened):
    look()
    assert opened == [cache.folder.name]
    opened.clear()
    assert look() == scan(cache.root, {})
    assert opened == []


def test_a_model_that_comes_is_seen_at_the_next_look_and_only_it_is_opened(cache, look, opened):
    look()
    opened.clear()
    cache.write({"a.bin": b"a"}, model="zoo/1")
    assert look().models == (cache.model, "zoo/1")
    assert opened == [model_directory("zoo/1")]


def test_a_model_that_goes_is_gone_at_the_next_look(cache, look):
    cache.write({"a.bin": b"a"}, model="zoo/1")
    look()
    shutil.rmtree(cache.folder)
    found = look()
    assert (found.models, found.packages) == (("zoo/1",), 1)
    assert found == scan(cache.root, {})


def test_packages_that_come_and_go_are_counted(cache, look):
    assert look().packages == 1
    cache.write({"a.bin": b"a"}, package="second")
    assert look().packages == 2
    shutil.rmtree(cache.package_folder)
    assert look().packages == 1
    shutil.rmtree(cache.folder / "second")
    assert look() == scan(cache.root, {})


def test_a_package_is_seen_when_its_manifest_is_finished(cache, look):
    text = cache.manifest.read_text()
    cache.manifest.unlink()
    assert look().models == ()
    cache.manifest.write_text(text)  # moves the package's directory, not the model's
    assert look().models == (cache.model,)


def test_a_manifest_that_is_repaired_is_seen(cache, look):
    text = cache.manifest.read_text()
    cache.manifest.write_text("{broken")
    assert look().unservable_packages == 1
    cache.manifest.write_text(text)
    found = look()
    assert (found.unservable_packages, found.skipped_total, found.models) == (0, 0, (cache.model,))


def test_a_directory_whose_time_is_too_young_to_be_believed_is_opened_again(cache, look, opened):
    """A second change within one tick of the clock would not show."""
    look(later=0)
    look(later=1)
    assert opened == [cache.folder.name] * 2
    look()
    look()
    assert opened == [cache.folder.name] * 3


def test_a_time_that_was_set_back_hides_nothing(cache, look):
    look()
    before = cache.folder.stat()
    shutil.rmtree(cache.package_folder)
    os.utime(cache.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look().models == ()


class TestFacts:
    """Models that are known by a fact only."""

    @pytest.fixture
    def nameless(self, cache):
        document = json.loads(cache.manifest.read_text())
        del document["canonical_model_id"], document["model_id"]
        cache.manifest.write_text(json.dumps(document))
        return cache

    def test_they_come_with_the_fact(self, nameless, look):
        assert look().models == ()
        assert look(nameless.model).models == (nameless.model,)

    def test_they_go_with_the_fact(self, nameless, look):
        assert look(nameless.model).models == (nameless.model,)
        found = look()
        assert (found.models, found.skipped_total) == ((), 1)

    def test_a_model_that_names_itself_stays(self, cache, look):
        assert look(cache.model).models == (cache.model,)
        assert look().models == (cache.model,)


class TestMany:
    """More than one look takes in."""

    @pytest.fixture
    def many(self, cache, monkeypatch):
        monkeypatch.setattr(scanner_module, "STATS_PER_LOOK", 4)
        monkeypatch.setattr(scanner_module, "MANY", 4)
        for number in range(10):
            cache.write({"a.bin": b"a"}, model=f"many/{number}")
        return cache

    def test_all_are_listed_in_order(self, many, look):
        assert look() == scan(many.root, {})
        shutil.rmtree(many.models / model_directory("many/3"))
        assert look() == scan(many.root, {})

    def test_every_one_has_its_turn(self, many, look):
        look()
        shutil.rmtree(many.models / model_directory("many/7") / "pkgA1")
        looks = [look().packages for _ in range(3)]
        assert looks[-1] == 10

    def test_what_has_not_moved_is_opened_again_in_its_turn(self, many, look, opened, monkeypatch):
        monkeypatch.setattr(scanner_module, "REFRESHED_PER_LOOK", 3)
        look()
        opened.clear()
        for _ in range(4):
            look()
        assert set(opened) == {path.name for path in many.models.iterdir()}


def test_a_root_that_is_replaced_is_scanned_anew(cache, look):
    look()
    shutil.rmtree(cache.root)
    assert look() == scan(cache.root, {})
    cache.write({"a.bin": b"a"}, model="other/1")
    assert look().models == ("other/1",)


def test_the_event_loop_runs_on_while_the_disk_is_looked_at(cache, monkeypatch):
    """A scan that is in the middle of a directory holds up nobody."""

    async def run():
        loop, is_in_scan, may_go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def survey(name, **about):
            loop.call_soon_threadsafe(is_in_scan.set)
            asyncio.run_coroutine_threadsafe(may_go_on.wait(), loop).result(10)
            return original(name, **about)

        original = scanner_module.survey_directory
        monkeypatch.setattr(scanner_module, "survey_directory", survey)
        scanning = asyncio.create_task(cache.catalogue.refresh([]))
        await is_in_scan.wait()
        served = await cache.catalogue.open_file(cache.model, cache.package, "weights.onnx")
        assert not scanning.done()
        may_go_on.set()
        await scanning
        os.close(served.descriptor)

    asyncio.run(run())
    assert cache.catalogue.models() == (cache.model,)
