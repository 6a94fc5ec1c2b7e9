from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from gateway.adapters.valkey_socket import (
    MAX_SOCKET_PATH_BYTES,
    find_listener,
    is_answering,
    make_private_folder,
    socket_path_for,
)
from gateway.model.errors import Misconfigured


@pytest.fixture
def short_folder():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield name


@pytest.fixture
def temporary(monkeypatch, short_folder):
    monkeypatch.setattr(tempfile, "tempdir", short_folder)
    return short_folder


def test_a_short_path_is_used_as_it_is(tmp_path):
    assert socket_path_for(tmp_path) == tmp_path / "valkey.sock"


def test_a_long_path_gets_a_short_private_folder_of_its_own(tmp_path, temporary):
    folders = [tmp_path / ("x" * 100) / name for name in ("a", "b")]
    paths = [socket_path_for(folder) for folder in folders]
    assert paths == [socket_path_for(folder) for folder in folders]
    assert len(set(paths)) == 2
    for path in paths:
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_limit_is_one_of_bytes_and_the_kernels_own(short_folder):
    limit = MAX_SOCKET_PATH_BYTES - len(short_folder) - 1
    for length, fits in ((limit, True), (limit + 1, False)):
        with socket.socket(socket.AF_UNIX) as listener:
            path = f"{short_folder}/{'x' * length}"
            if fits:
                listener.bind(path)
            else:
                with pytest.raises(OSError, match="too long"):
                    listener.bind(path)


@pytest.mark.parametrize("how", ["open", "file", "link"])
def test_a_short_folder_that_somebody_else_could_have_made_is_refused(tmp_path, temporary, how):
    Path(temporary).chmod(0o1777)
    folder = tmp_path / ("x" * 100)
    short = socket_path_for(folder).parent
    short.rmdir()
    if how == "open":
        short.mkdir()
        short.chmod(0o755)
    elif how == "file":
        short.touch(0o700)
    else:
        (tmp_path / "theirs").mkdir(0o700)
        short.symlink_to(tmp_path / "theirs")
    with pytest.raises(Misconfigured):
        socket_path_for(folder)


def test_a_folder_that_others_may_enter_is_refused_with_what_to_do(tmp_path):
    folder = tmp_path / "a"
    make_private_folder(folder)
    make_private_folder(folder)
    folder.chmod(0o750)
    with pytest.raises(Misconfigured, match="chmod 700"):
        make_private_folder(folder)


def test_nobody_answers_where_nobody_listens(tmp_path):
    assert not is_answering(tmp_path / "none.sock")
    assert find_listener(tmp_path / "none.sock") is None


def test_a_listener_that_is_no_ready_server_does_not_answer(short_folder):
    path = f"{short_folder}/a.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        pid = find_listener(path)
        assert pid is not None
        os.close(pid)
