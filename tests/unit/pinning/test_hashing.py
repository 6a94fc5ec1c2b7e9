"""Both digests of an open file, from one pass."""

from __future__ import annotations

import os
from hashlib import md5, sha256

import pytest

from gateway.model.errors import Unavailable
from gateway.model.pins import identity_of
from gateway.pinning.hashing import STEP_BYTES, measure


@pytest.fixture
def opened(tmp_path):
    path = tmp_path / "file"
    descriptors = []

    def write(content):
        path.write_bytes(content)
        descriptors.append(os.open(path, os.O_RDWR))
        return descriptors[-1]

    yield write
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES])
def test_both_digests_are_of_the_whole_content(opened, size):
    content = os.urandom(size)
    descriptor = opened(content)
    found = measure(descriptor)
    assert found.md5 == md5(content, usedforsecurity=False).hexdigest()
    assert found.sha256 == sha256(content).hexdigest()
    assert (found.size, found.identity) == (size, identity_of(os.fstat(descriptor)))


def test_the_position_of_the_descriptor_is_left_alone(opened):
    descriptor = opened(b"content")
    os.lseek(descriptor, 3, os.SEEK_SET)
    assert measure(descriptor).md5 == md5(b"content", usedforsecurity=False).hexdigest()
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 3


@pytest.mark.parametrize("change", ["rewritten", "truncated", "grown", "touched"])
def test_a_file_that_changes_under_the_reading_has_no_content(opened, change):
    descriptor = opened(b"x" * (2 * STEP_BYTES))

    def spoil(_step):
        if change == "rewritten":
            os.pwrite(descriptor, b"y", 0)
        elif change == "touched":
            os.utime(descriptor, ns=(0, 0))
        else:
            os.ftruncate(descriptor, STEP_BYTES if change == "truncated" else 3 * STEP_BYTES)
        return True

    assert measure(descriptor, keep_going=spoil) is None


def test_it_stops_when_told_and_says_how_far_it_came(opened):
    steps = []

    def stop(step):
        steps.append(step)
        return False

    assert measure(opened(b"x" * (3 * STEP_BYTES)), keep_going=stop) is None
    assert steps == [STEP_BYTES]


def test_what_cannot_be_read_is_unavailable(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Unavailable):
        measure(descriptor)
    os.close(descriptor)
