"""The measurement file: what a node measured is stored on disk and shared by its processes."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from gateway.adapters.measurement_file import MeasurementFile
from gateway.model.errors import Unavailable
from gateway.model.pins import Measured

IDENTITY = (2049, (1 << 64) - 1, 15, 1_700_000_000_000_000_001, -5)
FOUND = Measured(identity=IDENTITY, md5="ab" * 16, sha256="cd" * 32)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pins"


@pytest.fixture
def measurements(folder):
    file = MeasurementFile(folder)
    yield file
    file.close()


def test_what_was_put_is_found_by_another_process_s_file(measurements, folder):
    measurements.put(FOUND)
    other = MeasurementFile(folder)
    assert other.find(IDENTITY) == FOUND
    other.close()


def test_all_workers_of_a_new_node_open_it_at_once(tmp_path):
    for attempt in range(15):
        files = [MeasurementFile(tmp_path / str(attempt)) for _ in range(4)]
        barrier = Barrier(len(files))

        def find(file, barrier=barrier):
            barrier.wait()
            return file.find(IDENTITY)

        with ThreadPoolExecutor(len(files)) as pool:
            assert [*pool.map(find, files)] == [None] * len(files)
        for file in files:
            file.close()


YEAR_NS = 365 * 86_400 * 10**9
EXTREMES = {
    "a date after 2262": (1, 2, 15, 430 * YEAR_NS, 5),
    "a change after 2262": (1, 2, 15, 5, 430 * YEAR_NS),
    "a date before 1678": (1, 2, 15, -400 * YEAR_NS, 5),
    "the last second that there is": (1, 2, 15, (2**63 - 1) * 10**9, 5),
    "the first second that there is": (1, 2, 15, -(2**63) * 10**9, 5),
    "the largest file": (1, 2, 2**63 - 1, 4, 5),
    "the largest numbers": (2**64 - 1, 2**64 - 1, 15, 4, 5),
    "numbers of another kernel": (-1, -1, -1, 4, 5),
}


@pytest.mark.parametrize("identity", EXTREMES.values(), ids=EXTREMES)
def test_whatever_number_a_file_system_gives_is_kept_as_it_is(measurements, identity):
    found = Measured(identity=identity, md5="ab" * 16, sha256="cd" * 32)
    measurements.put(found)
    assert measurements.find(identity) == found
    for place in range(5):
        other = tuple(number + (index == place) for index, number in enumerate(identity))
        assert measurements.find(other) is None
    with measurements.turn(identity) as is_mine:
        assert is_mine


def test_a_later_identity_of_an_inode_takes_the_place_of_one_with_a_date_far_away(measurements, folder):
    far, near = EXTREMES["a date after 2262"], (1, 2, 15, 4, 5)
    measurements.put(Measured(identity=far, md5="ab" * 16, sha256="cd" * 32))
    measurements.put(Measured(identity=near, md5="ab" * 16, sha256="ef" * 32))
    assert measurements.find(far) is None
    assert measurements.find(near).sha256 == "ef" * 32


@pytest.mark.parametrize("place", range(5))
def test_no_other_identity_finds_it(measurements, place):
    measurements.put(FOUND)
    other = list(IDENTITY)
    other[place] -= 1
    assert measurements.find(tuple(other)) is None


def test_a_newer_identity_of_the_inode_takes_its_place(measurements):
    measurements.put(FOUND)
    newer = Measured(identity=(*IDENTITY[:3], 1, 2), md5="ef" * 16, sha256="01" * 32)
    measurements.put(newer)
    assert measurements.find(newer.identity) == newer
    assert measurements.find(IDENTITY) is None


def test_one_at_a_time_has_the_turn(measurements, folder):
    with measurements.turn(IDENTITY) as mine, MeasurementFile(folder).turn(IDENTITY) as theirs:
        assert (mine, theirs) == (True, False)
    with MeasurementFile(folder).turn(IDENTITY) as theirs:
        assert theirs


def test_two_files_are_measured_at_once(measurements, folder):
    other = (2049, 7, 0, 0, 0)
    with measurements.turn(IDENTITY) as one, MeasurementFile(folder).turn(other) as two:
        assert (one, two) == (True, True)


def test_a_turn_leaves_no_file_behind(measurements, folder):
    with measurements.turn(IDENTITY):
        assert len(list(folder.glob("*.lock"))) == 1
    assert list(folder.glob("*.lock")) == []


def test_who_locked_a_file_that_was_removed_meanwhile_has_no_turn(measurements, folder, monkeypatch):
    """Two processes take one lock; the first has finished and removed the file that the second has open."""
    real_open = os.open

    def open_and_lose(path, *arguments, **named):
        descriptor = real_open(path, *arguments, **named)
        if str(path).endswith(".lock"):
            path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with measurements.turn(IDENTITY) as mine:
        assert not mine


def test_nobody_else_can_read_the_folder(measurements, folder):
    measurements.put(FOUND)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_damaged_file_is_unavailable_and_says_what_to_do(folder):
    folder.mkdir()
    (folder / "measured.sqlite").write_bytes(b"not a database at all" * 100)
    measurements = MeasurementFile(folder)
    with pytest.raises(Unavailable, match="remove it") as failure:
        measurements.find(IDENTITY)
    assert failure.value.dependency == "state"
    measurements.close()


def test_what_others_could_have_measured_is_not_believed(measurements, folder):
    measurements.put(FOUND)
    (folder / "measured.sqlite").chmod(0o666)
    with pytest.raises(Unavailable, match="chmod go-w"):
        MeasurementFile(folder).find(IDENTITY)
    (folder / "measured.sqlite").chmod(0o600)
    folder.chmod(0o755)
    with pytest.raises(Unavailable, match="chmod 700"):
        MeasurementFile(folder).find(IDENTITY)
    folder.chmod(0o777)
    for work in (
        lambda: MeasurementFile(folder).find(IDENTITY),
        MeasurementFile(folder).turn(IDENTITY).__enter__,
    ):
        with pytest.raises(Unavailable, match="chmod"):
            work()
