from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from gateway.model.errors import Misconfigured, Unavailable
from gateway.model.file_lock import FileLock
from tests.conftest import as_user


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.lock"


def test_one_holds_it_alone_until_it_is_closed(path):
    with FileLock(path) as first, FileLock(path) as second:
        assert first.is_taken_alone()
        assert not second.is_taken_alone()
        assert not second.is_shared()
    with FileLock(path) as third:
        assert third.is_taken_alone()


def test_many_share_it_and_the_last_can_have_it_alone(path):
    with FileLock(path) as first:
        assert first.is_shared()
        with FileLock(path) as second:
            assert second.is_shared()
            assert not second.is_taken_alone()
        assert first.is_taken_alone()


def test_a_child_that_inherits_it_holds_it_on(path):
    lock = FileLock(path)
    assert lock.is_taken_alone()
    with subprocess.Popen(["sleep", "60"], pass_fds=(lock.descriptor,)) as child:
        lock.close()
        with FileLock(path) as other:
            assert not other.is_taken_alone()
            child.kill()
            child.wait()
            assert other.is_taken_alone()


def test_a_child_that_was_not_given_it_does_not_hold_it(path):
    lock = FileLock(path)
    assert lock.is_taken_alone()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        lock.close()
        with FileLock(path) as other:
            assert other.is_taken_alone()
        child.kill()


def test_waiting_for_it_ends_at_the_deadline(path):
    with FileLock(path) as first, FileLock(path) as second:
        first.wait_alone(time.monotonic())
        with pytest.raises(Unavailable, match=r"a\.lock"):
            second.wait_alone(time.monotonic() + 0.02)


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured):
        FileLock(path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.root
def test_a_lock_file_of_another_users_is_named_with_its_owner(tmp_path):
    tmp_path = Path(tempfile.mkdtemp(dir="/tmp"))
    os.chown(tmp_path, 61234, 61234)
    FileLock(tmp_path / "lock").close()
    said = r"belongs to root \(uid 0\), and this runs as uid 61234"
    with as_user(61234), pytest.raises(Misconfigured, match=said):
        FileLock(tmp_path / "lock")
    shutil.rmtree(tmp_path)
