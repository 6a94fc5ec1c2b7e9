"""Blobs are pinned before they are requested, and changes of them are detected."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from hashlib import md5

import pytest

from gateway.adapters.measurement_file import MeasurementFile
from gateway.model.errors import Conflict, Unavailable
from gateway.model.pins import identity_of
from gateway.pinning import ahead as ahead_module
from gateway.pinning.ahead import PinningAhead
from gateway.pinning.measuring import Measurer

pytestmark = pytest.mark.anyio


class Agreed:
    """A ledger that remembers its calls."""

    def __init__(self):
        self.contents = []
        self.fault = None
        self.spoilt = set()

    async def agree(self, contents):
        if self.fault:
            raise self.fault
        if self.spoilt & {name for name, _ in contents}:
            raise Conflict("a record does not parse")
        self.contents += contents
        return 1

    def take(self):
        taken, self.contents = self.contents, []
        return sorted((name, measured.md5) for name, measured in taken)


class Clock:
    def monotonic(self):
        return time.monotonic()

    def now(self):
        return time.time()  # noqa: TID251 -- it is compared with the times of files


@pytest.fixture
def agreed():
    return Agreed()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cache" / "shared-blobs").mkdir(parents=True)
    return tmp_path / "cache"


@pytest.fixture
def write(root):
    def put(content, name=None):
        name = name or md5(content, usedforsecurity=False).hexdigest()
        (root / "shared-blobs" / name).write_bytes(content)
        return name

    return put


@pytest.fixture
def make(root, tmp_path, agreed):
    made = []

    def ahead():
        measurer = Measurer(MeasurementFile(tmp_path / "pins"))
        failures = []
        one = PinningAhead(
            root=root,
            lock_file=tmp_path / "pins" / "ahead.lock",
            measurer=measurer,
            ledger=agreed,
            clock=Clock(),
            on_failure=failures.append,
            on_items_failed=lambda items, count: one.told.append((dict(items), count)),
        )
        one.told = []
        made.append((one, measurer))
        return one, measurer, failures

    yield ahead
    for one, measurer in made:
        measurer.close()
        one.close()


async def test_every_blob_is_agreed_on_whatever_it_holds(make, agreed, write):
    good, bad = write(b"good"), write(b"bad", "0" * 32)
    ahead, measurer, _ = make()
    await ahead.look()
    assert agreed.take() == sorted([(good, good), (bad, md5(b"bad", usedforsecurity=False).hexdigest())])
    assert measurer.counts.files == 2


async def test_what_was_hashed_by_anybody_on_this_node_is_not_hashed_again(make, agreed, write):
    good = write(b"good")
    await make()[0].look()
    agreed.take()
    ahead, measurer, _ = make()
    await ahead.look()
    assert (agreed.take(), measurer.counts.files) == ([(good, good)], 0)


async def test_a_later_pass_looks_at_what_changed_only(make, agreed, write, root):
    old, other = write(b"old"), write(b"other")
    ahead, _, _ = make()
    await ahead.look()
    agreed.take()
    ahead._newest_ns += 10_000_000_000  # as if all of that was long ago
    await ahead.look()
    assert agreed.take() == []
    ahead._newest_ns -= 10_000_000_000
    (root / "shared-blobs" / old).write_bytes(b"new")
    await ahead.look()
    assert (old, md5(b"new", usedforsecurity=False).hexdigest()) in agreed.take()
    assert other != old


async def test_a_pass_that_failed_is_made_again(make, agreed, write):
    good = write(b"good")
    ahead, _, _ = make()
    agreed.fault = Unavailable("redis", "gone")
    with pytest.raises(Unavailable):
        await ahead.look()
    agreed.fault = None
    await ahead.look()
    assert agreed.take() == [(good, good)]


async def test_a_blob_that_changes_under_the_reading_is_read_again(make, agreed, write, root, monkeypatch):
    good = write(b"good")
    ahead, _, _ = make()
    throttle = ahead._throttle

    def spoil_once(identity):
        os.utime(root / "shared-blobs" / good)
        monkeypatch.setattr(ahead, "_throttle", throttle)
        return lambda _step: not os.utime(root / "shared-blobs" / good, ns=(1, 1))

    monkeypatch.setattr(ahead, "_throttle", spoil_once)
    await ahead.look()
    assert agreed.take() == []
    ahead._newest_ns += 10_000_000_000
    await ahead.look()
    assert agreed.take() == [(good, good)]


async def test_a_link_or_a_lock_among_the_blobs_is_passed_over(make, agreed, write, root, tmp_path):
    good = write(b"good")
    (root / "shared-blobs" / ("1" * 32)).symlink_to(tmp_path)
    (root / "shared-blobs" / f".{good}.lock").touch()
    ahead, _, _ = make()
    await ahead.look()
    assert agreed.take() == [(good, good)]
    [(items, count)] = ahead.told
    assert (list(items), count) == (["1" * 32], 1)


async def test_one_worker_of_a_node_does_it_and_the_next_takes_over(make, agreed, write):
    write(b"good")
    (one, *_), (other, *_) = make(), make()
    first = asyncio.create_task(one.run())
    async with asyncio.timeout(10):
        while not agreed.contents:  # noqa: ASYNC110 -- what is waited for happens in a thread
            await asyncio.sleep(0.01)
    agreed.take()
    second = asyncio.create_task(other.run())
    await asyncio.sleep(0.05)
    assert agreed.contents == []
    first.cancel()
    async with asyncio.timeout(10):
        while not agreed.contents:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_dependency_that_fails_is_reported_once_and_asked_again(make, agreed, write):
    good = write(b"good")
    ahead, _, failures = make()
    agreed.fault = Unavailable("redis", "gone")
    running = asyncio.create_task(ahead.run())
    async with asyncio.timeout(10):
        while not failures:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(0.01)
        agreed.fault = None
        while not agreed.contents:  # noqa: ASYNC110 -- the same
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert agreed.take() == [(good, good)]
    assert len(failures) == 1


class TestOneBlobsTrouble:
    """A failure of one blob, whatever is raised, is reported by name, and the others are processed."""

    @pytest.fixture
    def blobs(self, write):
        return [write(b"content %d" % number) for number in range(9)]

    @pytest.mark.parametrize(
        "trouble",
        [Unavailable("cache", "EIO"), Conflict("odd"), struct.error("argument out of range"), MemoryError()],
    )
    async def test_one_that_cannot_be_measured(self, make, agreed, blobs, monkeypatch, trouble):
        ahead, measurer, failures = make()
        bad = (ahead._root / "shared-blobs" / blobs[4]).stat().st_ino
        original = measurer.measure_here

        def measure(descriptor, keep_going):
            if os.fstat(descriptor).st_ino == bad:
                raise trouble
            return original(descriptor, keep_going)

        monkeypatch.setattr(measurer, "measure_here", measure)
        for _ in range(2):
            await ahead.look()
            assert {name for name, _ in agreed.take()} >= set(blobs) - {blobs[4]}
            assert [(list(items), count) for items, count in ahead.told] == [([blobs[4]], 1)]
            ahead.told.clear()
        assert failures == []
        monkeypatch.setattr(measurer, "measure_here", original)
        ahead._newest_ns += 10_000_000_000  # the others did not change, as if all were long ago
        await ahead.look()
        assert (agreed.take(), ahead.told) == ([(blobs[4], blobs[4])], [])

    async def test_one_about_which_nothing_can_be_agreed(self, make, agreed, blobs):
        ahead, _, failures = make()
        agreed.spoilt = {blobs[2], blobs[7]}
        await ahead.look()
        assert {name for name, _ in agreed.take()} == set(blobs) - agreed.spoilt
        [(items, count)] = ahead.told
        assert (items.keys(), count, failures) == (agreed.spoilt, 2, [])
        agreed.spoilt = set()
        ahead._newest_ns += 10_000_000_000
        await ahead.look()
        assert {name for name, _ in agreed.take()} == {blobs[2], blobs[7]}

    async def test_of_many_the_first_are_named_and_all_are_counted(self, make, agreed, write, monkeypatch):
        monkeypatch.setattr(ahead_module, "MAX_NAMED", 3)
        blobs = [write(b"content %d" % number) for number in range(9)]
        ahead, _, _ = make()
        agreed.spoilt = set(blobs)
        await ahead.look()
        [(items, count)] = ahead.told
        assert (len(items), count) == (3, 9)

    async def test_what_fails_for_all_ends_the_pass_and_is_nobodys(self, make, agreed, blobs, monkeypatch):
        ahead, measurer, _ = make()

        def measure(_descriptor, _keep_going):
            raise Unavailable("state", "the folder cannot be used")

        monkeypatch.setattr(measurer, "measure_here", measure)
        with pytest.raises(Unavailable):
            await ahead.look()
        assert ahead.told == []

    async def test_one_that_waited_for_another_turn_still_has_it_after_a_pass_that_failed(
        self, make, agreed, blobs
    ):
        ahead, _, _ = make()
        agreed.spoilt = {blobs[2]}
        await ahead.look()
        agreed.take()
        ahead._newest_ns += 10_000_000_000
        agreed.spoilt, agreed.fault = set(), Unavailable("redis", "gone")
        with pytest.raises(Unavailable):
            await ahead.look()
        agreed.fault = None
        await ahead.look()
        assert agreed.take() == [(blobs[2], blobs[2])]

    async def test_one_that_is_sparse_and_endless_is_left_to_whoever_asks(
        self, make, agreed, blobs, root, monkeypatch
    ):
        monkeypatch.setattr(ahead_module, "MAX_AHEAD_BYTES", 1 << 20)
        with (root / "shared-blobs" / ("f" * 32)).open("wb") as endless:
            endless.truncate((1 << 20) + 1)
        ahead, measurer, _ = make()
        await ahead.look()
        assert {name for name, _ in agreed.take()} == set(blobs)
        [(items, _)] = ahead.told
        assert (list(items), measurer.counts.files) == (["f" * 32], len(blobs))

    async def test_large_ones_come_last_and_the_smallest_of_them_first(
        self, make, agreed, blobs, write, monkeypatch
    ):
        monkeypatch.setattr(ahead_module, "LARGE_BYTES", 100)
        larger, large = write(b"x" * 300), write(b"y" * 200)
        await make()[0].look()
        assert [name for name, _ in agreed.contents][-2:] == [large, larger]


@pytest.mark.parametrize("date", [-5_000_000_000, 0, 9_300_000_000, 13_500_000_000, 15_000_000_000])
async def test_a_blob_of_any_date_is_pinned_and_holds_up_no_other(make, agreed, write, root, date):
    """From 1811 to 2445, as far as this file system goes."""
    odd = write(b"odd")
    os.utime(root / "shared-blobs" / odd, (date, date))
    ahead, _, _ = make()
    await ahead.look()
    assert (agreed.take(), ahead.told) == ([(odd, odd)], [])
    good = write(b"good")
    await ahead.look()
    assert (good, good) in agreed.take()


async def test_a_change_time_that_lies_ahead_hides_no_later_change(make, agreed, write, monkeypatch):
    """A file server whose clock is years ahead wrote one of the blobs."""
    odd = write(b"odd")
    original = ahead_module.blobs_below

    def blobs_below(root, _on_refused):
        for name, identity in original(root):
            ahead_ns = 10**18 if name == odd else 0
            yield name, (*identity[:4], identity[4] + ahead_ns)

    monkeypatch.setattr(ahead_module, "blobs_below", blobs_below)
    ahead, _, _ = make()
    await ahead.look()
    agreed.take()
    good = write(b"good")
    await ahead.look()
    assert (good, good) in agreed.take()


async def test_names_that_are_no_blobs_are_passed_over_whatever_bytes_they_have(make, agreed, write, root):
    good = write(b"good")
    for name in (b"\xff" * 32, b"\xe9", b"a" * 31 + b"\n", "ä".encode() * 16):
        (root / "shared-blobs" / os.fsdecode(name)).write_bytes(b"")
    ahead, _, _ = make()
    await ahead.look()
    assert (agreed.take(), ahead.told) == ([(good, good)], [])


async def test_a_file_that_a_request_waits_for_is_read_in_haste(make, write, root, monkeypatch):
    """Background hashing does not sleep while a request waits for the same file."""
    good = write(b"x" * (3 << 20))
    ahead, measurer, _ = make()
    identity = identity_of((root / "shared-blobs" / good).stat())
    pause = ahead._throttle(identity)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pause(1)
    assert len(slept) == 1
    monkeypatch.setattr(measurer, "is_awaited", lambda asked: asked == identity)
    pause(1)
    assert len(slept) == 1
