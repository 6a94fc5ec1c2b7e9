from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from gateway.adapters.valkey_program import LOG_NAME, _configuration, _readable, find_program, spawn_valkey
from gateway.model.file_lock import FileLock


def test_the_wheel_holds_a_program_that_runs():
    told = subprocess.run([find_program(), "--version"], capture_output=True, check=True, text=True).stdout
    assert "v=9." in told


def test_a_program_that_cannot_do_its_work_says_so_by_its_status_and_in_its_log():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        (folder / "appendonlydir").touch()  # a file where a folder must be
        with FileLock(folder / "server.lock") as lock:
            assert lock.is_taken_alone()
            spawn_valkey(folder, folder / "valkey.sock", lock.descriptor)
        with FileLock(folder / "server.lock") as lock:
            lock.wait_alone(float("inf"))  # the process that inherited it has ended
        assert (folder / LOG_NAME).stat().st_size > 0
        assert (folder / LOG_NAME).stat().st_mode & 0o077 == 0


def test_the_whole_configuration_waits_for_its_reader_and_then_ends():
    content = _configuration(Path("/tmp/" + "é" * 40))
    with _readable(content) as reader:
        assert os.read(reader, 65536) == content
        assert os.read(reader, 1) == b""


@pytest.mark.parametrize("path", ['/a "b', "/a\nport 6379", "/a\\", "/a #x"])
def test_no_path_can_add_a_setting(path):
    lines = _configuration(Path(path)).splitlines()
    assert [line for line in lines if line.startswith(b"port")] == [b"port 0"]
    assert len(lines) == len(_configuration(Path("/a")).splitlines())
