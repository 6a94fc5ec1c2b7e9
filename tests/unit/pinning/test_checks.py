"""A file is served as what it was when it was first seen, or not at all."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from hashlib import md5, sha256

import pytest
from msgspec.structs import replace

from gateway.adapters.measurement_file import MeasurementFile
from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.names import FileHandle, Md5, ModelId, PackageId
from gateway.model.pins import Pin, PinFound, Quarantine, find_cause, identity_of
from gateway.model.stamps import Leaf, Stamp
from gateway.model.verdicts import OpenFile
from gateway.pinning import checks as pins_module
from gateway.pinning.checks import PinChecks
from gateway.pinning.measuring import Measurer

CONTENT = b"weights of cars"


class Fleet:
    """`NearPins` and `PinLedger` in memory: what all nodes agree on."""

    def __init__(self):
        self.pins: dict[str, Pin] = {}
        self.leaves: dict[str, Leaf] = {}
        self.agreements = 0

    async def find(self, blob):
        return self.recall(blob)

    def recall(self, blob):
        leaf = self.leaves.setdefault(blob, Leaf(blob.encode(), None))
        return PinFound(pin=self.pins.get(blob), leaf=leaf, generation=self.agreements)

    def put(self, pin):
        self.pins[pin.md5] = pin
        if pin.md5 in self.leaves:
            self.leaves.pop(pin.md5).is_current = False

    async def agree(self, contents):
        for blob, measured in contents:
            known = self.pins.get(blob)
            cause = find_cause(blob, measured, known)
            if cause is not None:
                bare = known or Pin(md5=blob, sha256=None, size=measured.size, pinned_at=1.0)
                found = Quarantine(cause=cause, since=2.0, found_sha256=measured.sha256)
                self.put(replace(bare, quarantine=found))
            elif known is None:
                self.put(Pin(md5=blob, sha256=measured.sha256, size=measured.size, pinned_at=1.0))
        self.agreements += 1
        return self.agreements


class Node:
    """One worker on a node: its pins over the fleet's, and files to open."""

    def __init__(self, folder, fleet):
        self.folder = folder
        self.fleet = fleet
        self.failures = []
        self.measurer = Measurer(MeasurementFile(folder / "pins"))
        self.pins = PinChecks(
            reader=fleet, ledger=fleet, measurer=self.measurer, on_failure=self.failures.append
        )

    def open(self, path, blob=None):
        descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(descriptor)
        return OpenFile(
            descriptor=descriptor,
            size=found.st_size,
            identity=identity_of(found),
            model=ModelId("acme/cars/1"),
            package=PackageId("p1"),
            handle=FileHandle("w.onnx"),
            md5=None if blob is None else Md5(blob),
        )

    async def determine(self, path, blob=None, wait_seconds=10.0):
        file = self.open(path, blob)
        try:
            return await self.pins.determine(file, wait_seconds=wait_seconds)
        finally:
            os.close(file.descriptor)


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
async def make_node(tmp_path, fleet):
    nodes = []

    def make(state="state"):
        nodes.append(Node(tmp_path / state, fleet))
        return nodes[-1]

    yield make
    for node in nodes:
        await node.pins.close()


@pytest.fixture
def node(make_node):
    return make_node()


@pytest.fixture
def blob(tmp_path):
    name = md5(CONTENT, usedforsecurity=False).hexdigest()
    path = tmp_path / name
    path.write_bytes(CONTENT)
    return path


async def refused(settling):
    with pytest.raises(Refusal) as refusal:
        await settling
    return refusal.value.reason


async def until(holds):
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 -- what is waited for happens in a thread
            await asyncio.sleep(0.005)


pytestmark = pytest.mark.anyio


async def test_a_blob_has_its_sha256_once_it_is_settled(node, blob, fleet):
    file = await node.determine(blob, blob.name)
    assert file.sha256 == sha256(CONTENT).hexdigest() == fleet.pins[blob.name].sha256


async def test_what_was_settled_is_recalled_without_waiting(node, blob):
    file = node.open(blob, blob.name)
    assert node.pins.recall(file) is None
    settled = await node.pins.determine(file)
    assert node.pins.recall(file) == settled
    os.close(file.descriptor)


async def test_content_that_is_not_its_name_is_quarantined(node, blob, fleet):
    blob.write_bytes(b"something else")
    assert await refused(node.determine(blob, blob.name)) is Reason.QUARANTINED
    assert fleet.pins[blob.name].quarantine.cause == "not-its-name"


async def test_content_that_another_node_pinned_differently_is_quarantined(node, blob, fleet):
    fleet.put(Pin(md5=blob.name, sha256="ab" * 32, size=len(CONTENT), pinned_at=1.0))
    assert await refused(node.determine(blob, blob.name)) is Reason.QUARANTINED
    assert fleet.pins[blob.name].quarantine.cause == "not-its-pin"


async def test_a_blob_that_another_node_quarantined_is_not_even_read(node, blob, fleet):
    await node.determine(blob, blob.name)
    known = fleet.pins[blob.name]
    found = Quarantine(cause="not-its-pin", since=2.0, found_sha256="cd" * 32)
    fleet.put(replace(known, quarantine=found))
    file = node.open(blob, blob.name)
    assert node.pins.recall(file) is None
    os.close(file.descriptor)
    os.utime(blob)  # another identity: it would have to be read
    assert await refused(node.determine(blob, blob.name)) is Reason.QUARANTINED
    assert node.measurer.counts.files == 1


@pytest.mark.parametrize("how", ["replaced", "rewritten", "truncated"])
async def test_a_blob_that_changed_is_never_taken_for_the_old_one(node, blob, how, tmp_path):
    await node.determine(blob, blob.name)
    if how == "replaced":
        other = tmp_path / "other"
        other.write_bytes(CONTENT[::-1])
        other.replace(blob)
    elif how == "rewritten":
        with blob.open("r+b") as file:
            file.write(b"W")
    else:
        os.truncate(blob, 3)
    file = node.open(blob, blob.name)
    assert node.pins.recall(file) is None
    os.close(file.descriptor)
    assert await refused(node.determine(blob, blob.name)) is Reason.QUARANTINED


async def test_the_same_content_under_a_new_identity_is_hashed_and_served(node, blob, tmp_path):
    await node.determine(blob, blob.name)
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT)
    copy.replace(blob)
    assert (await node.determine(blob, blob.name)).sha256 == sha256(CONTENT).hexdigest()
    assert node.measurer.counts.files == 2


async def test_a_package_file_gets_a_sha256_and_no_pin(node, blob, fleet):
    assert (await node.determine(blob)).sha256 == sha256(CONTENT).hexdigest()
    blob.write_bytes(b"written anew")
    assert (await node.determine(blob)).sha256 == sha256(b"written anew").hexdigest()
    assert fleet.pins == {}


async def test_one_reading_serves_all_who_ask_on_a_node(make_node, blob):
    one, other = make_node(), make_node()
    asked = [worker.determine(blob, blob.name) for worker in (one, other) for _ in range(5)]
    assert {file.sha256 for file in await asyncio.gather(*asked)} == {sha256(CONTENT).hexdigest()}
    assert one.measurer.counts.files + other.measurer.counts.files == 1


async def test_what_this_node_hashed_before_is_not_hashed_again(make_node, blob):
    await make_node().determine(blob, blob.name)
    later = make_node()
    assert (await later.determine(blob, blob.name)).sha256 is not None
    assert later.measurer.counts.files == 0


async def test_another_node_hashes_for_itself_and_agrees(make_node, blob):
    await make_node().determine(blob, blob.name)
    elsewhere = make_node("elsewhere")
    assert (await elsewhere.determine(blob, blob.name)).sha256 is not None
    assert elsewhere.measurer.counts.files == 1


async def test_who_waited_long_enough_gets_the_file_unpinned_and_the_next_one_pinned(make_node, blob):
    node, file = make_node(), None
    with MeasurementFile(node.folder / "pins").turn(identity_of(blob.stat())) as is_held:
        assert is_held
        file = await node.determine(blob, blob.name, wait_seconds=0.05)
        assert file.sha256 is None
    assert (await node.determine(blob, blob.name)).sha256 is not None


async def test_only_so_many_files_wait_to_be_hashed_at_once(make_node, blob, monkeypatch):
    """Each of them keeps a descriptor open, and a caller may request all files that it may read."""
    monkeypatch.setattr(pins_module, "MAX_RUNS", 1)
    node, other = make_node(), blob.with_name("other")
    other.write_bytes(b"other")
    with MeasurementFile(node.folder / "pins").turn(identity_of(blob.stat())):
        assert (await node.determine(blob, blob.name, wait_seconds=0.02)).sha256 is None
        assert (await node.determine(other)).sha256 is None  # at once: it is hashed while it is sent
        assert len(node.pins._runs) == 1
    await until(lambda: not node.pins._runs)
    assert (await node.determine(other)).sha256 is not None


async def test_a_caller_that_leaves_does_not_stop_the_hashing(node, blob, fleet):
    with MeasurementFile(node.folder / "pins").turn(identity_of(blob.stat())):
        asking = asyncio.create_task(node.determine(blob, blob.name))
        await asyncio.sleep(0.02)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
    await until(lambda: blob.name in fleet.pins)


async def test_closing_ends_what_still_waits_for_its_turn(node, blob):
    with MeasurementFile(node.folder / "pins").turn(identity_of(blob.stat())):
        assert (await node.determine(blob, blob.name, wait_seconds=0.02)).sha256 is None
        async with asyncio.timeout(10):
            await node.pins.close()


class TestAttest:
    """Digests from a delivery that hashed a file while it sent it."""

    async def test_it_pins_what_was_read(self, node, blob, fleet):
        file = node.open(blob, blob.name)
        attested = await node.pins.attest(file, md5=blob.name, sha256=sha256(CONTENT).hexdigest())
        assert attested.sha256 == fleet.pins[blob.name].sha256
        assert node.pins.recall(file) == attested
        assert node.measurer.counts.files == 0
        os.close(file.descriptor)

    async def test_content_that_is_not_the_name_is_refused(self, node, blob, fleet):
        file = node.open(blob, blob.name)
        attesting = node.pins.attest(file, md5="0" * 32, sha256="0" * 64)
        assert await refused(attesting) is Reason.QUARANTINED
        assert fleet.pins[blob.name].quarantine is not None
        os.close(file.descriptor)

    async def test_a_file_that_changed_meanwhile_is_not_believed(self, node, blob, fleet):
        file = node.open(blob, blob.name)
        os.utime(blob)
        with pytest.raises(Unavailable) as failure:
            await node.pins.attest(file, md5=blob.name, sha256=sha256(CONTENT).hexdigest())
        assert failure.value.reason is Reason.CHANGED_ON_DISK
        assert fleet.pins == {}
        os.close(file.descriptor)


class TestStamp:
    """The records that an answer with a file depends on."""

    async def test_a_quarantine_withdraws_what_has_not_begun(self, node, blob, fleet):
        file = await node.determine(blob, blob.name)
        stamp = node.pins.stamped(file, Stamp(1, ()))
        assert stamp.is_current
        fleet.put(fleet.pins[blob.name])
        assert not stamp.is_current

    async def test_a_package_file_stands_on_no_pin(self, node, blob):
        stamp = Stamp(1, ())
        assert node.pins.stamped(await node.determine(blob), stamp) is stamp


async def test_an_unusable_state_folder_is_reported_and_the_file_goes_unpinned(tmp_path, blob, fleet):
    (tmp_path / "state").write_text("a file where a folder belongs")
    node = Node(tmp_path / "state", fleet)
    assert (await node.determine(blob, blob.name)).sha256 is None
    assert [failure.dependency for failure in node.failures] == ["state"]
    await node.pins.close()
