"""A scan opens only directories that changed, and its result equals that of a full scan."""

from __future__ import annotations

import asyncio
import json
import os
import shutil

import pytest

from gateway.model.errors import Unavailable
from gateway.model.presence import NothingSeen
from gateway.resource import scan as scan_module
from gateway.resource import scanner as scanner_module
from gateway.resource.manifests import Manifests
from gateway.resource.naming import model_directory
from gateway.resource.scan import MAX_REPORTED, Looking
from gateway.resource.scan import scan as scan_cache
from gateway.resource.scanner import Scanner


class _Always:
    """A clock by which every change time is old enough to be reliable."""

    def now(self):
        return 4e9


def scan(root, known):
    return scan_cache(root, known, Looking(manifests=Manifests(_Always(), reads_all_here=True), now=4e9))


def new_scanner(root):
    return Scanner(root, manifests=Manifests(_Always()), seen=NothingSeen())


LATER = 60.0  # seconds after which every change time is old enough to be reliable


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
    cache.manifest.write_text(text)  # changes the package's directory, not the model's
    assert look().models == (cache.model,)


def test_a_manifest_that_is_repaired_is_seen(cache, look):
    text = cache.manifest.read_text()
    cache.manifest.write_text("{broken")
    assert look().unservable_packages == 1
    cache.manifest.write_text(text)
    found = look()
    assert (found.unservable_packages, found.skipped_total, found.models) == (0, 0, (cache.model,))


def test_a_directory_whose_time_is_too_young_to_be_believed_is_opened_again(cache, look, opened):
    """A second change within one tick of the clock would not be detected."""
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
    """More directories than one scan checks."""

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
    """A scan that is in the middle of a directory delays no request."""

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


class TestUndecided:
    """What cannot be read because the disk or the machine fails is not reported as gone."""

    @pytest.fixture
    def failing(self, cache, monkeypatch):
        """One directory that fails to be read from the moment it is set."""
        failures = {}
        original = scan_module.package_names

        def package_names(directory):
            failure = failures.get(os.fstat(directory).st_ino)
            if failure is not None:
                raise failure
            return original(directory)

        monkeypatch.setattr(scan_module, "package_names", package_names)
        return failures

    @pytest.mark.parametrize("failure", [Unavailable("cache", "EIO"), RuntimeError("nobody expected it")])
    def test_a_directory_that_cannot_be_read_stays_in_the_list_and_the_others_have_their_turn(
        self, cache, look, failing, failure
    ):
        cache.write({"a.bin": b"a"}, model="zoo/1")
        before = look()
        failing[cache.folder.stat().st_ino] = failure
        cache.write({"a.bin": b"a"}, model="beta/1")
        os.utime(cache.folder)
        found = look()
        assert found.models == (cache.model, "beta/1", "zoo/1")
        assert {one.model for one in found.listed} == set(found.models)
        assert [one.where for one in found.skipped] == [cache.folder.name]
        failing.clear()
        assert look().skipped_total == before.skipped_total == 0

    def test_one_that_was_never_read_is_in_no_list_until_it_is(self, cache, look, failing):
        failing[cache.folder.stat().st_ino] = Unavailable("cache", "EMFILE")
        assert (look().models, look().skipped_total) == ((), 1)
        failing.clear()
        assert look().models == (cache.model,)

    def test_a_manifest_that_cannot_be_read_takes_no_package_out_of_the_list(self, cache, look, monkeypatch):
        cache.write({"a.bin": b"a"}, package="second")
        assert look().packages == 2
        broken = (cache.folder / "second").stat().st_ino
        original = Manifests.read_in_passing

        def read(self, directory, pause):
            if os.fstat(directory).st_ino == broken:
                raise Unavailable("cache", "ESTALE")
            return original(self, directory, pause)

        monkeypatch.setattr(Manifests, "read_in_passing", read)
        os.utime(cache.folder)
        assert look().packages == 2

    def test_one_that_is_gone_is_gone_although_it_could_not_be_read_before(self, cache, look, failing):
        look()
        failing[cache.folder.stat().st_ino] = Unavailable("cache", "EIO")
        os.utime(cache.folder)
        assert look().models == (cache.model,)
        shutil.rmtree(cache.folder)
        assert look().models == ()


class TestBounds:
    """Anyone who can write to the volume can make any number of names."""

    def test_names_that_are_none_of_the_engines_are_counted_and_the_first_told(self, cache, look, opened):
        for number in range(150):
            (cache.models / f"junk-{number:04}").mkdir()
        found = look()
        assert opened == [cache.folder.name]
        assert found == scan(cache.root, {})
        assert (found.skipped_total, len(found.skipped)) == (150, MAX_REPORTED)

    def test_what_is_remembered_of_junk_does_not_grow_with_it(self, cache, monkeypatch):
        monkeypatch.setattr(scanner_module, "NAMES_PER_SLICE", 10)
        monkeypatch.setattr(scanner_module, "MAX_REPORTED", 3)
        for number in range(200):
            (cache.models / f"junk-{number:04}").touch()
        scanner = new_scanner(cache.root)
        found = scanner.look({}, cache.clock.time + LATER)
        assert (found.skipped_total, len(found.skipped)) == (200, 3)
        assert [one.where for one in found.skipped] == ["junk-0000", "junk-0001", "junk-0002"]
        assert (len(scanner._entries), len(scanner._faulty), len(scanner._others)) == (1, 0, 3)

    def test_so_many_directories_are_taken_in_and_the_rest_is_told(self, cache, monkeypatch):
        monkeypatch.setattr(scanner_module, "MAX_DIRECTORIES", 4)
        for number in range(9):
            cache.write({"a.bin": b"a"}, model=f"many/{number}")
        scanner = new_scanner(cache.root)
        found = scanner.look({}, cache.clock.time + LATER)
        assert (len(found.models), found.skipped_total) == (4, 6)
        assert (found.skipped[0].where, len(scanner._entries)) == ("models-cache", 4)
        for model in found.models[:2]:
            shutil.rmtree(cache.models / model_directory(model))
        found = scanner.look({}, cache.clock.time + LATER)
        assert (len(found.models), found.skipped_total) == (4, 4)

    def test_names_are_taken_in_with_a_pause_after_each_slice(self, cache, monkeypatch):
        monkeypatch.setattr(scanner_module, "NAMES_PER_SLICE", 10)
        for number in range(95):
            (cache.models / f"junk-{number:04}").touch()
        pauses = []
        scanner = Scanner(
            cache.root,
            manifests=Manifests(_Always()),
            seen=NothingSeen(),
            pause=lambda: pauses.append(None),
        )
        scanner.look({}, cache.clock.time + LATER)
        assert len(pauses) >= 9

    def test_of_one_directory_only_so_much_is_told(self, cache, look):
        for number in range(50):
            (cache.folder / f"half{number}").mkdir()
        found = look()
        assert found == scan(cache.root, {})
        assert (found.skipped_total, len(found.skipped)) == (50, 10)

    def test_details_of_what_is_left_aside_are_bounded_and_all_is_counted(self, cache, monkeypatch):
        monkeypatch.setattr(scanner_module, "MAX_DETAILED", 3)
        for number in range(10):
            cache.write({"a.bin": b"a"}, model=f"many/{number}")
            (cache.models / model_directory(f"many/{number}") / "pkgA1" / "model_config.json").unlink()
        scanner = new_scanner(cache.root)
        found = scanner.look({}, cache.clock.time + LATER)
        assert (found.skipped_total, len(found.skipped)) == (10, 3)
        for number in range(10):
            shutil.rmtree(cache.models / model_directory(f"many/{number}"))
        scanner.look({}, cache.clock.time + LATER)
        assert scanner._detailed == 0
