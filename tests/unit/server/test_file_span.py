"""Whether a range can be read without waiting for a disk. How ranges are sent is in test_file_sender.py."""

from __future__ import annotations

import os

import pytest

from gateway.server.file_span import PROBE_BYTES, WARM_BYTES, is_in_memory

CONTENT = bytes(9 << 20)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_a_hole_in_what_is_in_memory_is_found(file):
    assert is_in_memory(file, 0, WARM_BYTES)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    if is_in_memory(file, len(CONTENT) - 1, len(CONTENT)):
        pytest.skip("this file system keeps everything in memory")
    os.pread(file, PROBE_BYTES * 3, 0)
    os.pread(file, WARM_BYTES - PROBE_BYTES * 4, PROBE_BYTES * 4)
    assert is_in_memory(file, 0, PROBE_BYTES * 3)
    assert is_in_memory(file, PROBE_BYTES * 4, WARM_BYTES)
    assert not is_in_memory(file, 0, WARM_BYTES)
