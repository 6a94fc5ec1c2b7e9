"""Blobs are pinned before they are asked for, and found out when they change."""

from __future__ import annotations

import asyncio
import os
import time
from hashlib import md5

import pytest

from gateway.adapters.measurement_file import MeasurementFile
from gateway.model.errors import Conflict, Unavailable
from gateway.model.pins import identity_of
from gateway.pinning.ahead import PinningAhead
from gateway.pinning.measuring import Measurer

pytestmark = pytest.mark.anyio


class Agreed:
    """A ledger that remembers what it was asked."""

    def __init__(self):
        self.contents = []
        self.fault = None

    async def agree(self, contents):
        if self.fault:
            raise self.fault
        self.contents += contents
        return 1

    def take(self):
        taken, self.contents = self.contents, []
        return sorted((name, measured.md5) for name, measured in taken)


class Clock:
    def monotonic(self):
        return time.monotonic()


@pytest.fixture
def anyio_backend():
    return "asyncio"


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
        )
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
    leisure = ahead._at_leisure

    def spoil_once(identity):
        os.utime(root / "shared-blobs" / good)
        monkeypatch.setattr(ahead, "_at_leisure", leisure)
        return lambda _step: not os.utime(root / "shared-blobs" / good, ns=(1, 1))

    monkeypatch.setattr(ahead, "_at_leisure", spoil_once)
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


@pytest.mark.parametrize("fault", [Unavailable("redis", "gone"), Conflict("a record does not parse")])
async def test_what_goes_wrong_is_reported_and_tried_again(fault, make, agreed, write):
    good = write(b"good")
    ahead, _, failures = make()
    agreed.fault = fault
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


async def test_a_file_that_a_request_waits_for_is_read_in_haste(make, write, root, monkeypatch):
    """Whoever reads at leisure stops sleeping when somebody comes for the very file."""
    good = write(b"x" * (3 << 20))
    ahead, measurer, _ = make()
    identity = identity_of((root / "shared-blobs" / good).stat())
    breathe = ahead._at_leisure(identity)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    breathe(1)
    assert len(slept) == 1
    monkeypatch.setattr(measurer, "is_awaited", lambda asked: asked == identity)
    breathe(1)
    assert len(slept) == 1
