"""Files are opened one path component at a time, never through a link."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import contextmanager

import pytest

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.resource.safe_open import (
    find_link_text,
    inspect_regular,
    names_in,
    open_regular,
    opened_cache_folder,
    opened_directory,
    opened_root,
)
from gateway.resource.unservable import finding_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with opened_root(tmp_path) as descriptor:
        yield descriptor


def _refused(call, *args, **kwargs):
    with pytest.raises(Refusal) as refusal:
        call(*args, **kwargs)
    assert refusal.value.reason == Reason.UNSERVABLE
    return finding_of(refusal.value)


@contextmanager
def _no_more_descriptors():
    """Limit this process to the descriptors that it has open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_root_may_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with opened_root(tmp_path / "link") as descriptor:
        assert os.fstat(descriptor).st_ino == (tmp_path / "real").stat().st_ino


@pytest.mark.parametrize("lies_there", ["nothing", "file", "dangling link", "link to itself", "fifo"])
def test_a_root_that_is_no_directory_is_no_cache_and_says_nothing_about_any_file(tmp_path, lies_there):
    root = tmp_path / "root"
    if lies_there == "file":
        root.touch()
    elif lies_there == "dangling link":
        root.symlink_to(tmp_path / "gone")
    elif lies_there == "link to itself":
        root.symlink_to(root)
    elif lies_there == "fifo":
        os.mkfifo(root)
    with pytest.raises(Unavailable) as failure:
        opened_root(root).__enter__()
    assert (failure.value.dependency, failure.value.reason) == ("cache", Reason.CACHE_UNAVAILABLE)


@pytest.mark.parametrize(
    "number",
    [
        *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENOTDIR, errno.EMFILE),
        *(errno.ENOTCONN, errno.ENAMETOOLONG),
    ],
    ids=errno.errorcode.get,
)
def test_whatever_keeps_us_from_the_root_says_nothing_about_any_file(tmp_path, monkeypatch, number):
    def refuse(*_about, **_more):
        raise OSError(number, os.strerror(number))

    with opened_root(tmp_path) as root:
        monkeypatch.setattr(os, "open", refuse)
        for ask in (
            lambda: opened_root(tmp_path).__enter__(),
            lambda: opened_cache_folder("models-cache", below=root).__enter__(),
        ):
            with pytest.raises(Unavailable) as failure:
                ask()
            assert failure.value.reason is Reason.CACHE_UNAVAILABLE
        monkeypatch.undo()


@pytest.mark.parametrize("lies_there", ["file", "link"])
def test_what_lies_in_the_place_of_the_engines_own_folder_is_no_cache(tmp_path, lies_there):
    place = tmp_path / "models-cache"
    if lies_there == "file":
        place.touch()
    else:
        (tmp_path / "moved").mkdir()
        place.symlink_to(tmp_path / "moved")
    with opened_root(tmp_path) as root, pytest.raises(Unavailable) as failure:
        opened_cache_folder("models-cache", below=root).__enter__()
    assert failure.value.reason is Reason.CACHE_UNAVAILABLE


def test_the_engines_own_folder_may_not_be_there_yet(tmp_path):
    with opened_root(tmp_path) as root, opened_cache_folder("models-cache", below=root) as models:
        assert models is None


@pytest.mark.parametrize("is_listable", [True, False])
def test_a_directory_is_opened_by_its_own_name_only(folder, is_listable):
    with opened_directory("real", below=folder, is_listable=is_listable) as real:
        assert inspect_regular("file", below=real, may_have_other_names=False).st_size == 7
    with opened_directory("gone", below=folder, is_listable=is_listable) as gone:
        assert gone is None


@pytest.mark.parametrize("is_listable", [True, False])
def test_a_directory_that_is_a_link_is_unservable(folder, is_listable):
    _refused(opened_directory("link", below=folder, is_listable=is_listable).__enter__)


def test_the_names_in_a_directory_are_all_of_them(folder):
    with opened_directory("real", below=folder, is_listable=True) as real:
        assert names_in(real) == ["file"]


def test_a_directory_that_is_removed_while_it_is_open_has_no_names(folder, tmp_path):
    (tmp_path / "brief").mkdir()
    with opened_directory("brief", below=folder, is_listable=True) as brief:
        (tmp_path / "brief").rmdir()
        assert names_in(brief) == []


def test_the_text_of_a_link_is_read_and_not_followed(folder, tmp_path):
    (tmp_path / "dangling").symlink_to("/nowhere/at all")
    assert find_link_text("dangling", below=folder) == "/nowhere/at all"
    assert find_link_text("gone", below=folder) is None
    _refused(find_link_text, "real", below=folder)


def test_a_regular_file_is_opened_and_its_stat_is_that_of_the_descriptor(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    descriptor, stat = open_regular("file", below=folder, may_have_other_names=False)
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == b"content"
        assert os.fstat(file.fileno()).st_ino == stat.st_ino
    assert open_regular("gone", below=folder, may_have_other_names=False) is None


def test_an_open_file_is_not_inherited_by_other_programs(folder, tmp_path):
    (tmp_path / "file").touch()
    descriptor, _ = open_regular("file", below=folder, may_have_other_names=False)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def _make_fifo(path):
    os.mkfifo(path)


def _make_socket(path):
    server = socket.socket(socket.AF_UNIX)
    os.chdir(path.parent)  # a socket's path has 108 bytes at most
    server.bind(path.name)
    server.close()


def _make_link(path):
    path.symlink_to("real/file")


def _make_directory(path):
    path.mkdir()


@pytest.mark.parametrize("make", [_make_fifo, _make_socket, _make_link, _make_directory])
def test_nothing_but_a_regular_file_is_opened_and_nothing_hangs(folder, tmp_path, make, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "thing")
    _refused(open_regular, "thing", below=folder, may_have_other_names=True)
    _refused(inspect_regular, "thing", below=folder, may_have_other_names=True)


def test_a_device_is_not_opened():
    with opened_root("/dev") as devices:
        _refused(open_regular, "null", below=devices, may_have_other_names=True)


def test_a_file_of_another_device_than_its_directory_is_unservable(folder, tmp_path):
    with opened_root("/proc/self") as other:
        elsewhere = os.fstat(other).st_dev
    assert elsewhere != tmp_path.stat().st_dev
    # A file mounted over a name needs a privilege that tests may lack; /dev/pts/ptmx and the like are
    # devices. So the check is called directly.
    from gateway.resource.safe_open import _verify_regular  # noqa: PLC0415 -- the one private look

    (tmp_path / "file").touch()
    stat = (tmp_path / "file").stat()
    _verify_regular(stat, "file", stat.st_dev, may_have_other_names=False)
    assert "device" in _refused(_verify_regular, stat, "file", elsewhere, may_have_other_names=False)


def test_a_hard_link_is_opened_only_where_other_names_are_allowed(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    assert "hard link" in _refused(open_regular, "file", below=folder, may_have_other_names=False)
    descriptor, _ = open_regular("file", below=folder, may_have_other_names=True)
    os.close(descriptor)


def test_a_process_without_descriptors_is_unavailable_and_denies_nothing(folder, tmp_path):
    (tmp_path / "file").touch()
    with _no_more_descriptors():
        with pytest.raises(Unavailable, match="EMFILE") as failure:
            open_regular("file", below=folder, may_have_other_names=False)
        assert failure.value.reason is Reason.CACHE_UNAVAILABLE
        with pytest.raises(Unavailable, match="EMFILE"):
            opened_directory("real", below=folder).__enter__()


def test_descriptors_are_closed_when_the_body_raises(folder):
    def fail():
        with opened_directory("real", below=folder):
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        fail()


def test_a_name_with_control_characters_is_harmless_in_the_finding(folder, tmp_path):
    (tmp_path / "a\nb").symlink_to("real/file")
    assert "\n" not in _refused(open_regular, "a\nb", below=folder, may_have_other_names=True)
