"""A manifest is read once while its file does not change, and a large one never on the event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import tracemalloc
from typing import ClassVar

import pytest

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.presence import NothingSeen
from gateway.resource import manifests as manifests_module
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue
from gateway.resource.manifest import MAX_MANIFEST_BYTES, parse_manifest
from gateway.resource.manifests import (
    INLINE_BYTES,
    LARGE_BYTES,
    RELIABLE_AFTER_SECONDS,
    Manifests,
    UnreadError,
)
from gateway.resource.scanner import Scanner

MANY = 20_000
ABSENT = "nothing.bin"


def listed(handle, md5="0" * 32):
    return {"file_handle": handle, "md5_hash": md5, "unhashed": False, "storage": "shared_blob"}


def fill(cache, count, package="many"):
    """A package whose manifest lists so many files, of which the last by name exists."""
    [file] = cache.write({"z.bin": b"the last"}, package=package)
    place = cache.folder / package / "model_config.json"
    document = json.loads(place.read_text())
    document["package_artifacts"] += [
        listed(f"f{number:06}", f"{number:032x}") for number in range(count - 1)
    ]
    place.write_text(json.dumps(document))
    return file


def wait_until_reliable(cache):
    """Set the clock far enough after the last write that the file's times are reliable."""
    cache.clock.time += 10


class Threads(list):
    def __init__(self):
        super().__init__()
        self.sizes = []


@pytest.fixture
def parsed(monkeypatch):
    """The thread of each parse of a manifest; `sizes` are the manifests' sizes in bytes."""
    threads = Threads()
    original = manifests_module.parse_manifest

    def parse(raw, pause):
        threads.append(threading.current_thread())
        threads.sizes.append(len(raw))
        return original(raw, pause)

    monkeypatch.setattr(manifests_module, "parse_manifest", parse)
    return threads


@pytest.fixture
def big(cache):
    """A package of many files, old enough to be cached."""
    cache.big = fill(cache, MANY)
    cache.package = "many"
    wait_until_reliable(cache)
    return cache


class TestOnce:
    def test_a_small_one_is_read_where_it_is_asked_for_and_not_again(self, cache, parsed):
        wait_until_reliable(cache)
        for _ in range(3):
            assert cache.open() == b"weights of cars"
            assert cache.open(ABSENT) is None
            assert len(cache.handles()) == 5
        assert parsed == [threading.main_thread()]

    def test_a_large_one_is_read_in_another_thread_than_the_loops(self, big, parsed):
        for _ in range(3):
            assert big.open("z.bin") == b"the last"
            assert big.open(ABSENT) is None
        [thread] = parsed
        assert thread is not threading.main_thread()

    def test_many_who_ask_at_once_cause_one_reading(self, big, parsed):
        async def ask():
            name = (big.model, big.package)
            found = await asyncio.gather(
                *(big.catalogue.open_file(*name, "z.bin") for _ in range(20)),
                *(big.catalogue.has(*name, ABSENT) for _ in range(20)),
                *(big.catalogue.listing(*name, limit=3) for _ in range(5)),
                big.catalogue.refresh([]),
            )
            for one in found[:20]:
                os.close(one.descriptor)

        asyncio.run(ask())
        assert len([size for size in parsed.sizes if size > LARGE_BYTES]) == 1

    @pytest.mark.parametrize("size", [0, INLINE_BYTES, LARGE_BYTES])
    def test_a_broken_one_is_read_once_however_often_it_is_scanned_and_asked_for(self, cache, parsed, size):
        cache.manifest.write_text("{" + " " * size)
        wait_until_reliable(cache)
        for _ in range(4):
            cache.refresh()
            with pytest.raises(Refusal) as refusal:
                cache.open()
            assert refusal.value.reason is Reason.UNSERVABLE
        assert len(parsed) == 1

    def test_a_broken_one_is_read_again_once_it_changed(self, cache, parsed):
        text = cache.manifest.read_text()
        cache.manifest.write_text("{")
        wait_until_reliable(cache)
        cache.refresh()
        cache.manifest.write_text(text)
        wait_until_reliable(cache)
        assert cache.open() == b"weights of cars"
        cache.refresh()
        assert cache.catalogue.models() == (cache.model,)

    def test_one_that_is_replaced_is_read_anew(self, big, parsed):
        assert big.open("z.bin") == b"the last"
        place = big.folder / "many" / "model_config.json"
        document = json.loads(place.read_text())
        del document["package_artifacts"][0]
        other = place.with_name("other")
        other.write_text(json.dumps(document))
        other.replace(place)
        wait_until_reliable(big)
        assert big.open("z.bin") is None
        assert len(parsed) == 2

    def test_a_small_one_that_changed_a_moment_ago_is_read_each_time(self, cache, parsed):
        """A second change within one tick of the clock would not be detected."""
        for _ in range(3):
            cache.open()
        assert len(parsed) == 3

    def test_a_large_one_that_changed_a_moment_ago_is_believed_for_two_seconds_and_read_once_more(
        self, cache, parsed
    ):
        fill(cache, 1000)
        for _ in range(3):
            cache.open("z.bin", package="many")
        assert len(parsed) == 1
        cache.clock.time += 30 * RELIABLE_AFTER_SECONDS
        for _ in range(3):
            cache.open("z.bin", package="many")
        assert len(parsed) == 2
        cache.clock.time += 100 * RELIABLE_AFTER_SECONDS
        cache.open("z.bin", package="many")
        assert len(parsed) == 2

    def test_one_that_changes_under_the_reading_is_not_remembered(self, big, monkeypatch):
        place = big.folder / "many" / "model_config.json"
        readings = []

        def parse(raw, pause):
            readings.append(len(raw))
            os.utime(place)
            return parse_manifest(raw, pause)

        monkeypatch.setattr(manifests_module, "parse_manifest", parse)
        with pytest.raises(Unavailable) as failure:
            big.open("z.bin")
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE
        assert len(readings) > 1
        assert big.catalogue.manifests.held_bytes == 0

    def test_a_scan_comes_by_small_ones_without_taking_the_place_of_what_is_asked_for(self, cache):
        wait_until_reliable(cache)
        cache.refresh()
        assert cache.catalogue.manifests.held_bytes == 0
        cache.open()
        assert cache.catalogue.manifests.held_bytes > 0

    def test_large_ones_that_stay_are_read_once_by_a_scan_whatever_there_is_room_for(self, cache, parsed):
        fill(cache, 1000)
        (cache.folder / "half").mkdir()  # unfinished: the directory is opened at every scan
        wait_until_reliable(cache)
        scanner = Scanner(cache.root, manifests=Manifests(cache.clock, max_bytes=1), seen=NothingSeen())
        for _ in range(4):
            assert scanner.look({}, cache.clock.time).packages == 2
        # The small one of that directory each time, the large one once.
        assert sorted(size > INLINE_BYTES for size in parsed.sizes) == [False] * 4 + [True]

    def test_a_command_reads_all_of_them_where_it_asks(self, big, parsed):
        settings = CatalogueSettings(root=big.root)
        big.catalogue = DiskCatalogue(settings, big.clock, reads_all_here=True)
        assert big.open("z.bin") == b"the last"
        assert parsed == [threading.main_thread()]


class TestWaiting:
    """A caller that asks for a large manifest waits for it, within a timeout, and delays no other caller."""

    @pytest.fixture
    def blocked(self, big, monkeypatch):
        """No manifest is parsed before this is set."""
        may_go_on = threading.Event()

        def parse(raw, pause):
            assert may_go_on.wait(30)
            return parse_manifest(raw, pause)

        monkeypatch.setattr(manifests_module, "parse_manifest", parse)
        return may_go_on

    def test_without_waiting_there_is_nothing_until_it_was_read(self, big):
        assert big.catalogue.open_file_now(big.model, "many", "z.bin") is None
        big.open("z.bin")
        found = big.catalogue.open_file_now(big.model, "many", "z.bin")
        os.close(found.descriptor)

    def test_others_are_served_meanwhile(self, big, blocked):
        async def ask():
            waiting = asyncio.create_task(big.catalogue.open_file(big.model, "many", "z.bin"))
            small = asyncio.create_task(big.catalogue.has(big.model, "pkgA1", ABSENT))
            await asyncio.sleep(0)
            assert not await small
            assert not waiting.done()
            blocked.set()
            os.close((await waiting).descriptor)

        # The small one is read in the calling thread, so it must not wait for the event that is not set.
        blocked.set()
        big.open(package="pkgA1")
        blocked.clear()
        asyncio.run(ask())

    def test_what_takes_a_moment_does_not_wait_behind_what_takes_long(self, big, monkeypatch):
        fill(big, 200, package="medium")
        wait_until_reliable(big)
        may_go_on = threading.Event()

        def parse(raw, pause):
            assert len(raw) <= LARGE_BYTES or may_go_on.wait(30)
            return parse_manifest(raw, pause)

        monkeypatch.setattr(manifests_module, "parse_manifest", parse)

        async def ask():
            waiting = asyncio.create_task(big.catalogue.has(big.model, "many", "z.bin"))
            await asyncio.sleep(0)
            assert await big.catalogue.has(big.model, "medium", "z.bin")
            assert not waiting.done()
            may_go_on.set()
            assert await waiting

        asyncio.run(ask())

    def test_whoever_waits_too_long_is_told_to_come_again_and_finds_it_then(self, big, blocked, monkeypatch):
        async def ask():
            monkeypatch.setattr(manifests_module, "WAIT_SECONDS", 0.0)
            with pytest.raises(Unavailable) as failure:
                await big.catalogue.has(big.model, "many", "z.bin")
            assert failure.value.reason is Reason.CACHE_UNAVAILABLE
            monkeypatch.setattr(manifests_module, "WAIT_SECONDS", 30.0)
            blocked.set()
            assert await big.catalogue.has(big.model, "many", "z.bin")

        asyncio.run(ask())
        assert big.catalogue.manifests.reads == 1

    def test_no_more_than_so_many_wait_to_be_read(self, big, blocked, monkeypatch):
        fill(big, MANY, package="other")
        wait_until_reliable(big)
        monkeypatch.setattr(manifests_module, "MAX_WAITING", 1)

        async def ask():
            first = asyncio.create_task(big.catalogue.has(big.model, "many", "z.bin"))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await big.catalogue.has(big.model, "other", "z.bin")
            blocked.set()
            assert await first

        asyncio.run(ask())

    def test_one_who_leaves_ends_nobody_elses_reading(self, big, blocked):
        async def ask():
            first, second = (
                asyncio.create_task(big.catalogue.has(big.model, "many", "z.bin")) for _ in range(2)
            )
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            blocked.set()
            assert await second

        asyncio.run(ask())
        assert big.catalogue.manifests.reads == 1

    def test_one_that_is_gone_when_it_is_read_is_absent(self, big, monkeypatch):
        original = big.catalogue._read_manifest

        def read(*about):
            (big.folder / "many" / "model_config.json").unlink()
            original(*about)

        monkeypatch.setattr(big.catalogue, "_read_manifest", read)
        assert big.open("z.bin") is None

    def test_one_that_is_too_large_is_refused_unread(self, cache, parsed):
        with cache.manifest.open("wb") as file:
            file.truncate(MAX_MANIFEST_BYTES + 1)
        wait_until_reliable(cache)
        with pytest.raises(Refusal):
            cache.open()
        cache.refresh()
        assert parsed == []


SHAPES = {
    "a file each its own blob": lambda number: listed(f"f{number}", f"{number:032x}"),
    "one blob for all": lambda number: listed(f"f{number}"),
    "long names": lambda number: listed(f"{number:06}" + "/".join(["n" * 20] * 16), f"{number:032x}"),
    "deep names": lambda number: listed(f"{number:06}/" + "/".join("a" * 15), f"{number:032x}"),
    "no digest": lambda number: {"file_handle": f"f{number}"},
    "a digest of its own": lambda number: {
        "file_handle": f"f{number}",
        "md5_hash": f"{number:032x}",
        "storage": "package_file",
    },
}


class TestMemory:
    """Cached manifests are charged their size, and the total is bounded."""

    @pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("count", [1, 100, 5_000])
    def test_a_manifest_holds_no_more_than_it_is_charged(self, shape, count):
        raw = json.dumps({"package_artifacts": [shape(number) for number in range(count)]}).encode()
        parse_manifest(raw)
        tracemalloc.start()
        try:
            manifest = parse_manifest(raw)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(manifest.artifacts) == count
        assert held <= manifest.held_bytes <= 4 * held + 2_000

    def test_of_many_the_least_recently_asked_for_goes_first(self, cache, parsed):
        for package in ("one", "two", "three"):
            fill(cache, 200, package=package)
        wait_until_reliable(cache)
        manifests = cache.catalogue.manifests
        cache.open("z.bin", package="one")
        manifests._max_bytes = 2 * manifests.held_bytes
        for package in ("two", "one", "three"):
            cache.open("z.bin", package=package)
        assert manifests.held_bytes <= manifests._max_bytes
        parsed.clear()
        cache.open("z.bin", package="one")
        assert parsed == []
        cache.open("z.bin", package="two")
        assert len(parsed) == 1

    def test_that_they_are_broken_is_bounded_as_well(self, cache):
        wait_until_reliable(cache)
        manifests = Manifests(cache.clock, max_bytes=5 * manifests_module.BROKEN_HELD_BYTES)
        for number in range(20):
            folder = cache.root / f"p{number}"
            folder.mkdir()
            (folder / "model_config.json").write_text("{")
            descriptor = os.open(folder, os.O_PATH)
            cache.clock.time += 10
            try:
                with pytest.raises(Refusal):
                    manifests.find(descriptor)
            finally:
                os.close(descriptor)
        assert len(manifests._known) == 5
        assert manifests.held_bytes == manifests._max_bytes

    def test_a_finding_costs_no_more_than_it_is_charged(self):
        document = json.dumps({"canonical_model_id": "\n" * 100_000}).encode()
        with pytest.raises(Refusal) as refusal:
            parse_manifest(document)
        assert sys.getsizeof(refusal.value.__notes__[0]) < manifests_module.BROKEN_HELD_BYTES - 400


class TestSteps:
    """A request for one file costs the same, however many files the package has."""

    @staticmethod
    def steps(work):
        """How many Python instructions are executed: this detects a loop, however it is written."""
        count = 0

        def trace(frame, event, _argument):
            nonlocal count
            frame.f_trace_opcodes = True
            count += event == "opcode"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(before)
        return count

    ASKS: ClassVar = {
        "hit": lambda catalogue, name, _md5: catalogue.open_file(*name, "z.bin"),
        "absent": lambda catalogue, name, _md5: catalogue.open_file(*name, ABSENT),
        "digest": lambda catalogue, name, md5: catalogue.find_blob(*name, md5),
        "no digest": lambda catalogue, name, _md5: catalogue.find_blob(*name, "f" * 32),
        "has": lambda catalogue, name, _md5: catalogue.has(*name, "z.bin"),
        "has not": lambda catalogue, name, _md5: catalogue.has(*name, ABSENT),
    }

    @pytest.mark.parametrize("asked", ASKS)
    def test_they_are_as_many_among_twenty_thousand_files_as_among_two(self, cache, asked):
        files = {count: fill(cache, count, package=f"of{count}") for count in (2, MANY)}
        wait_until_reliable(cache)
        counts = {}
        for count, file in files.items():
            name = (cache.model, f"of{count}")
            assert cache.open("z.bin", package=f"of{count}") == b"the last"  # the manifest is read
            question = self.ASKS[asked](cache.catalogue, name, file.md5)
            found = []

            def ask(question=question, found=found):
                with pytest.raises(StopIteration) as done:  # none of it has to wait
                    question.send(None)
                found.append(done.value.value)

            counts[count] = self.steps(ask)
            if asked == "hit":
                os.close(found[0].descriptor)
            assert bool(found[0]) == (asked in {"hit", "digest", "has"})
        assert counts[2] == counts[MANY]

    @pytest.mark.parametrize("after", [None, "f000100", "f019000", "z.bin", "zz"])
    def test_a_page_looks_at_as_many_files_as_it_has(self, big, monkeypatch, after):
        looked = []
        original = DiskCatalogue._entries

        def entries(self, model, package, handles):
            looked.extend(handles)
            return original(self, model, package, handles)

        monkeypatch.setattr(DiskCatalogue, "_entries", entries)
        listing = big.listing(big.model, "many", after=after, limit=50)
        handles = [*(f"f{number:06}" for number in range(MANY - 1)), "z.bin"]
        expected = [one for one in handles if after is None or one > after][:50]
        assert looked == expected
        assert listing.after == (expected[-1] if expected and expected[-1] != "z.bin" else None)

    def test_pages_together_are_all_that_is_there(self, cache):
        cache.package = "many"
        fill(cache, 30)
        cache.write({f"g{number}": b"g%d" % number for number in range(10)}, package="many")
        shown, after = [], None
        for _ in range(9):
            page = cache.listing(cache.model, "many", after=after, limit=3)
            shown += [one.handle for one in page.files]
            after = page.after
            if after is None:
                break
        assert shown == cache.handles() == [f"g{number}" for number in range(10)]

    def test_a_digest_that_many_files_have_is_looked_for_in_the_first_of_them(self, cache, monkeypatch):
        place = cache.manifest
        document = json.loads(place.read_text())
        document["package_artifacts"] = [listed(f"f{number:05}", "a" * 32) for number in range(5_000)]
        place.write_text(json.dumps(document))
        wait_until_reliable(cache)
        looked = []
        original = DiskCatalogue._entries

        def entries(self, model, package, handles):
            looked.extend(handles)
            return original(self, model, package, handles)

        monkeypatch.setattr(DiskCatalogue, "_entries", entries)
        assert cache.find_blob(cache.model, cache.package, "a" * 32) is None
        assert looked == [f"f{number:05}" for number in range(16)]


def test_an_unread_one_is_told_apart_from_a_broken_one(big):
    directory = os.open(big.folder / "many", os.O_PATH)
    try:
        with pytest.raises(UnreadError) as unread:
            big.catalogue.manifests.find(directory)
    finally:
        os.close(directory)
    assert unread.value.identity[2] == (big.folder / "many" / "model_config.json").stat().st_size
