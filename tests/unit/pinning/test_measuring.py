"""Measuring off the event loop, once, with a bounded memory."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256

import pytest

from gateway.adapters.measurement_file import MeasurementFile
from gateway.model.bounded_memory import ENTRY_BYTES
from gateway.model.pins import Measured, identity_of
from gateway.pinning import measuring as module
from gateway.pinning.measuring import Measurer

pytestmark = pytest.mark.anyio


@pytest.fixture
def measurements(tmp_path):
    return MeasurementFile(tmp_path / "pins")


@pytest.fixture
def measurer(measurements):
    one = Measurer(measurements)
    yield one
    one.close()


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


async def test_what_is_measured_is_remembered_in_memory_and_on_disk(measurer, measurements, opened):
    found = await measurer.measure(opened)
    assert found.sha256 == sha256(b"content").hexdigest()
    assert measurer.recall(found.identity) is found
    assert measurements.find(found.identity) == found
    assert (measurer.counts.files, measurer.counts.bytes) == (1, 7)


async def test_memory_is_bounded_and_the_oldest_goes(measurements, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 2 * (ENTRY_BYTES + module.MEASURED_BYTES))
    measurer = Measurer(measurements)
    found = [Measured(identity=(1, number, 0, 0, 0), md5="", sha256="") for number in range(3)]
    for one in found:
        measurer.remember(one)
    assert [measurer.recall(one.identity) for one in found] == [None, found[1], found[2]]


async def test_a_small_file_does_not_wait_for_a_large_one(
    measurements, measurer, opened, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "LARGE_BYTES", 100)
    (tmp_path / "large").write_bytes(b"x" * 101)
    large = os.open(tmp_path / "large", os.O_RDONLY)
    with measurements.turn(identity_of(os.fstat(large))):  # it waits for the lock, as long as this holds it
        waiting = asyncio.create_task(measurer.measure(large))
        assert (await measurer.measure(opened)).size == 7
        assert not waiting.done()
    assert (await waiting).size == 101
    os.close(large)


async def test_whoever_waits_for_a_turn_says_so(measurements, measurer, opened):
    identity = identity_of(os.fstat(opened))
    assert not measurer.is_awaited(identity)
    with measurements.turn(identity):
        waiting = asyncio.create_task(measurer.measure(opened))
        async with asyncio.timeout(10):
            while not measurer.is_awaited(identity):  # noqa: ASYNC110 -- it is said in a thread
                await asyncio.sleep(0.005)
    await waiting
    assert not measurer.is_awaited(identity)


async def test_whoever_leaves_while_waiting_for_a_turn_waits_no_longer(measurements, measurer, opened):
    identity = identity_of(os.fstat(opened))
    with measurements.turn(identity):
        waiting = asyncio.create_task(measurer.measure(opened))
        async with asyncio.timeout(10):
            while not measurer.is_awaited(identity):  # noqa: ASYNC110 -- it is said in a thread
                await asyncio.sleep(0.005)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not measurer.is_awaited(identity)


async def test_a_stopped_measurer_finds_out_nothing_more(measurer, measurements, opened):
    measurer.stop()
    assert await measurer.measure(opened) is None
    assert measurer.measure_here(opened) == (True, None)
    assert measurements.find(identity_of(os.fstat(opened))) is None
