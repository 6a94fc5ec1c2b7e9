"""The room that the disk of the audit folder has left."""

from __future__ import annotations

import os

from gateway.audit.disk_space import find_disk_space


def test_the_room_is_that_of_the_folders_own_file_system(tmp_path):
    found, status = find_disk_space(tmp_path), os.statvfs(tmp_path)
    assert found is not None
    assert found.whole_bytes == status.f_blocks * status.f_frsize
    assert 0 <= found.free_bytes <= found.whole_bytes


def test_of_a_folder_that_is_gone_nothing_is_told(tmp_path):
    assert find_disk_space(tmp_path / "gone") is None
