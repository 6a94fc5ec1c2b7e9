from __future__ import annotations

import os

import pytest

from gateway.delivery.unchanged import CutError, is_unchanged, unsent, verify_unchanged
from gateway.model.errors import Reason
from gateway.model.verdicts import Ending


def truncate(path):
    os.truncate(path, 1)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def rewrite_quietly(path):
    times = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path):
    other = path.with_name("other")
    other.write_bytes(b"other")
    other.replace(path)


def remove(path):
    path.unlink()


def test_a_file_that_is_left_alone_is_unchanged(blob_of):
    file = blob_of(b"content").opened()
    os.pread(file.descriptor, 7, 0)
    assert is_unchanged(file)
    verify_unchanged(file)


@pytest.mark.parametrize("change", [truncate, grow, rewrite_quietly, replace, remove])
def test_a_file_that_is_touched_is_not(change, blob_of):
    blob = blob_of(b"content")
    file = blob.opened()
    change(blob.path)
    assert not is_unchanged(file)
    with pytest.raises(CutError) as caught:
        verify_unchanged(file)
    assert caught.value.ending is Ending.CHANGED_ON_DISK


def test_a_cut_before_the_first_byte_is_a_failure_that_may_be_tried_again(blob_of):
    failure = unsent(blob_of(b"content").opened(), CutError.changed())
    assert failure.reason is Reason.CHANGED_ON_DISK
    assert failure.dependency == "cache"
