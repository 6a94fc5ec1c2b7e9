"""A path is trusted when only its reader and root can have written it and every folder on its path.

Tests that need two users are marked `root`: they switch to the second user for a moment.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import (
    OPENINGS,
    Distrusted,
    make_own_folder,
    open_trusted,
    read_trusted,
    verify_own_folder,
    verify_trusted,
    verify_trusted_folder,
)
from tests.conftest import as_user

NOBODY, STRANGER = 65534, 61234
MOST = 1000


@pytest.fixture
def folder(tmp_path):
    """A folder of our own on a trusted path."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def shared():
    """A folder that other users can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def sticky(folder):
    """A folder like /tmp: any user may create entries, and remove only their own."""
    path = folder / "like-tmp"
    path.mkdir()
    path.chmod(0o1777)
    return path


def write(path, content=b"content", mode=0o644):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def read(path, **more):
    return read_trusted(path, max_bytes=MOST, **more)


def culprit_of(path, **more):
    """What makes a path untrusted; None when it is trusted."""
    found = []
    verify_trusted(path, on_distrust=found.append, **more)
    return found[0].culprit if found else None


# Write permission


def test_a_file_of_our_own_is_read(folder):
    assert read(write(folder / "file")) == b"content"


@pytest.mark.parametrize("mode", [0o666, 0o646, 0o602])
def test_a_file_that_everybody_may_write_is_refused(folder, mode):
    with pytest.raises(Distrusted) as refused:
        read(write(folder / "file", mode=mode))
    assert refused.value.culprit == str(folder / "file")


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o664, 0o620])
def test_a_file_that_its_group_may_write_is_refused(folder, mode):
    path = write(folder / "file", mode=mode)
    assert culprit_of(path) == str(path)


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o703])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_folder_on_the_way_that_everybody_may_write_is_refused_however_far_up(folder, mode, depth):
    way = [folder / "a", folder / "a/b", folder / "a/b/c"]
    way[-1].mkdir(parents=True)
    path = write(way[-1] / "file")
    way[depth].chmod(mode)
    with pytest.raises(Distrusted) as refused:
        read(path)
    assert refused.value.culprit == str(way[depth])
    assert refused.value.where == str(path)


@pytest.mark.root
def test_a_folder_on_the_way_that_its_group_may_write_is_refused(folder):
    (folder / "a").mkdir()
    (folder / "a").chmod(0o775)
    assert culprit_of(write(folder / "a/file")) == str(folder / "a")


@pytest.mark.root
@pytest.mark.parametrize("owned", ["file", "folder", "folder above"])
def test_what_another_user_owns_is_refused_whatever_its_mode_is(folder, owned):
    (folder / "a/b").mkdir(parents=True)
    path = write(folder / "a/b/file", mode=0o400)
    culprit = {"file": path, "folder": folder / "a/b", "folder above": folder / "a"}[owned]
    os.chown(culprit, STRANGER, STRANGER)
    with pytest.raises(Distrusted) as refused:
        read(path)
    assert refused.value.culprit == str(culprit)


@pytest.mark.root
def test_to_another_user_what_is_roots_is_trusted_and_what_is_a_third_ones_is_not(shared):
    roots, own, third = (write(shared / name) for name in ("roots", "own", "third"))
    os.chown(own, NOBODY, NOBODY)
    os.chown(third, STRANGER, STRANGER)
    with as_user(NOBODY):
        assert (culprit_of(roots), culprit_of(own), culprit_of(third)) == (None, None, str(third))


def test_the_first_that_is_found_is_said_and_what_follows_is_read_when_asked_to_go_on(folder):
    (folder / "a").mkdir(0o777)
    (folder / "a").chmod(0o777)
    path = write(folder / "a/file", mode=0o666)
    found = []
    assert read(path, on_distrust=found.append) == b"content"
    assert [one.culprit for one in found] == [str(folder / "a")]


# Private groups


def private_group_user():
    """A user with a group of its own and no other member in it, as this system creates one; not root."""
    for user in pwd.getpwall():
        if user.pw_uid not in {0, NOBODY} and user.pw_uid == user.pw_gid:
            return user
    pytest.skip("no user of this system has a private group")
    raise AssertionError


@pytest.mark.root
def test_a_group_that_has_its_owner_alone_may_write(shared):
    user = private_group_user()
    path = write(shared / "file", mode=0o664)
    os.chown(path, user.pw_uid, user.pw_gid)
    with as_user(user.pw_uid, user.pw_gid):
        assert culprit_of(path) is None


@pytest.mark.root
def test_everybody_may_not_write_although_the_group_is_private(shared):
    user = private_group_user()
    path = write(shared / "file", mode=0o666)
    os.chown(path, user.pw_uid, user.pw_gid)
    with as_user(user.pw_uid, user.pw_gid):
        assert culprit_of(path) == str(path)


@pytest.mark.root
def test_no_other_group_may_write_not_even_one_without_members(shared):
    user = private_group_user()
    first = {one.pw_gid for one in pwd.getpwall()}
    empty = [one.gr_gid for one in grp.getgrall() if not one.gr_mem and one.gr_gid not in first]
    for gid in (STRANGER, *empty[:3]):
        path = write(shared / "file", mode=0o664)
        os.chown(path, user.pw_uid, gid)
        with as_user(user.pw_uid, user.pw_gid):
            assert culprit_of(path) == str(path)


@pytest.mark.root
def test_a_user_without_a_name_in_group_0_as_openshift_makes_them_has_no_private_group(shared):
    (shared / "volume").mkdir()
    (shared / "volume").chmod(0o2775)
    path = write(shared / "volume/file")
    os.chown(path, STRANGER, 0)
    with as_user(STRANGER, 0):
        assert culprit_of(path) == str(shared / "volume")
    (shared / "volume").chmod(0o755)
    with as_user(STRANGER, 0):
        assert culprit_of(path) is None


@pytest.mark.root
@pytest.mark.parametrize("whose", ["a member", "another user's first group"])
def test_a_private_group_that_somebody_else_is_in_may_not_write(shared, monkeypatch, whose):
    user = private_group_user()
    path = write(shared / "file", mode=0o664)
    os.chown(path, user.pw_uid, user.pw_gid)
    if whose == "a member":
        group = grp.getgrgid(user.pw_gid)
        changed = grp.struct_group((group.gr_name, group.gr_passwd, group.gr_gid, ["mallory"]))
        monkeypatch.setattr(grp, "getgrgid", lambda _gid: changed)
    else:
        other = pwd.struct_passwd(("mallory", "x", STRANGER, user.pw_gid, "", "/", "/bin/sh"))
        monkeypatch.setattr(pwd, "getpwall", lambda: [user, other])
    with as_user(user.pw_uid, user.pw_gid):
        assert culprit_of(path) == str(path)


@pytest.mark.root
def test_an_access_list_that_lets_somebody_else_write_is_no_private_group(shared):
    user = private_group_user()
    path = write(shared / "file", mode=0o664)
    os.chown(path, user.pw_uid, user.pw_gid)
    set_access_list(path, user_id=STRANGER)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    with as_user(user.pw_uid, user.pw_gid):
        assert culprit_of(path) == str(path)


@pytest.mark.root
def test_an_access_list_shows_as_the_groups_bits(folder):
    path = write(folder / "file", mode=0o644)
    set_access_list(path, user_id=STRANGER)
    assert culprit_of(path) == str(path)


def set_access_list(path, *, user_id):
    """`setfacl -m u:ID:rw`, in the form in which the kernel keeps it."""
    entries = [(1, 6, -1), (2, 6, user_id), (4, 4, -1), (16, 6, -1), (32, 4, -1)]
    raw = (2).to_bytes(4, "little")
    for tag, permissions, who in entries:
        raw += tag.to_bytes(2, "little") + permissions.to_bytes(2, "little")
        raw += (who & 0xFFFFFFFF).to_bytes(4, "little")
    try:
        os.setxattr(path, "system.posix_acl_access", raw)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system has no access lists")
        raise


# World-writable folders


def test_a_folder_of_our_own_in_a_sticky_one_is_trusted(sticky):
    (sticky / "own").mkdir(mode=0o755)
    assert read(write(sticky / "own/file")) == b"content"


def test_a_folder_that_everybody_may_write_without_the_sticky_bit_is_not(sticky):
    (sticky / "own").mkdir(mode=0o755)
    path = write(sticky / "own/file")
    sticky.chmod(0o777)
    assert culprit_of(path) == str(sticky)


@pytest.mark.root
def test_a_folder_of_another_users_in_a_sticky_one_is_not(sticky):
    (sticky / "planted").mkdir()
    path = write(sticky / "planted/file")
    os.chown(sticky / "planted", STRANGER, STRANGER)
    assert culprit_of(path) == str(sticky / "planted")


def test_a_file_of_ours_in_a_sticky_folder_may_have_got_its_name_from_anybody(sticky, folder):
    os.link(write(folder / "meant-for-something-else"), sticky / "cachegate.toml")
    assert culprit_of(sticky / "cachegate.toml") == str(sticky / "cachegate.toml")
    (folder / "meant-for-something-else").unlink()  # with a single name left, it is still not trusted
    assert culprit_of(sticky / "cachegate.toml") == str(sticky / "cachegate.toml")


def test_a_link_of_ours_in_a_sticky_folder_may_have_too(sticky, folder):
    write(folder / "file")
    (sticky / "link").symlink_to(folder / "file")
    assert culprit_of(sticky / "link") == str(sticky / "link")


def test_a_sticky_folder_itself_is_not_for_our_files(sticky):
    assert culprit_of(sticky) == str(sticky)


# Links


@pytest.mark.parametrize(
    "target", ["file", "{folder}/file", "../real/file", "./file", "{folder}/../real/file"]
)
def test_a_link_to_what_is_trusted_is_trusted(folder, target):
    real = folder / "real"
    real.mkdir()
    write(real / "file")
    (real / "link").symlink_to(target.format(folder=real))
    assert read(real / "link") == b"content"


@pytest.mark.parametrize("bad", ["target", "target's folder", "link's folder"])
def test_a_link_is_as_bad_as_the_worst_of_both_ways(folder, bad):
    for name in ("links", "targets"):
        (folder / name).mkdir()
    target = write(folder / "targets/file")
    (folder / "links/link").symlink_to(target)
    culprit = {"target": target, "target's folder": target.parent, "link's folder": folder / "links"}[bad]
    culprit.chmod(0o777)
    assert culprit_of(folder / "links/link") == str(culprit)


def test_a_link_to_a_folder_is_followed_with_all_that_is_on_its_way(folder):
    (folder / "real/sub").mkdir(parents=True)
    write(folder / "real/sub/file")
    (folder / "first").symlink_to("second")
    (folder / "second").symlink_to(folder / "real")
    assert read(folder / "first/sub/file") == b"content"
    (folder / "real").chmod(0o757)
    assert culprit_of(folder / "first/sub/file") == str(folder / "real")


def test_going_up_goes_up_from_where_a_link_led(folder):
    (folder / "a/b").mkdir(parents=True)
    write(folder / "a/file", b"of a")
    write(folder / "file", b"of the top")
    (folder / "link").symlink_to(folder / "a/b")
    assert read(folder / "link/../file") == b"of a"


def test_links_in_a_circle_end(folder):
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links") as ended:
        read(folder / "one")
    assert ended.value.errno == errno.ELOOP


@pytest.mark.root
def test_a_link_that_another_user_made_is_refused_although_its_target_is_ours(sticky, folder):
    target = write(folder / "file")
    (sticky / "link").symlink_to(target)
    os.lchown(sticky / "link", STRANGER, STRANGER)
    assert culprit_of(sticky / "link") == str(sticky / "link")


def test_a_descriptor_of_this_process_is_the_file_that_it_is_of(folder):
    path = write(folder / "file", mode=0o666)
    with path.open("rb") as file:
        assert culprit_of(Path(f"/proc/self/fd/{file.fileno()}")) == str(path)
        path.chmod(0o644)
        assert read(Path(f"/dev/fd/{file.fileno()}")) == b"content"


def test_a_pipe_that_is_passed_by_its_descriptor_is_not_there(folder):
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="No such file"):
            read(Path(f"/proc/self/fd/{reader}"))
    finally:
        os.close(reader)
        os.close(writer)


# Container mounts


def mount_like_kubernetes(place, mode):
    """A mounted secret or configuration: files are links to a folder that is replaced as a whole."""
    place.mkdir(exist_ok=True)
    (place / "..2030_01_01").mkdir(mode=0o755)
    write(place / "..2030_01_01/cachegate.toml")
    (place / "..data").symlink_to("..2030_01_01")
    (place / "cachegate.toml").symlink_to("..data/cachegate.toml")
    place.chmod(mode)
    return place / "cachegate.toml"


def test_links_within_a_mounted_folder_are_followed(folder):
    assert read(mount_like_kubernetes(folder / "mount", 0o755)) == b"content"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_such_a_folder_is_not_trusted_where_it_can_be_written(folder, mode):
    path = mount_like_kubernetes(folder / "mount", mode)
    assert culprit_of(path) in {str(folder / "mount"), str(path)}


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2775])
def test_mounted_read_only_it_is_judged_by_its_owners(folder, mode):
    path = mount_like_kubernetes(folder / "source", mode)
    mounted = folder / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", "-o", "ro", folder / "source", mounted], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", mounted], check=True)
    try:
        assert read(mounted / path.name) == b"content"
        os.chown(folder / "source/..2030_01_01/cachegate.toml", STRANGER, STRANGER)
        assert culprit_of(mounted / path.name) == str(mounted / "..2030_01_01/cachegate.toml")
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)


# Secrets


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o610, 0o4701])
def test_a_secret_is_open_to_nobody_else(folder, mode):
    with pytest.raises(Distrusted, match="chmod 600"):
        read(write(folder / "key", mode=mode), is_secret=True)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_of_our_own_is_read(folder, mode):
    assert read(write(folder / "key", mode=mode), is_secret=True) == b"content"


@pytest.mark.root
def test_a_secret_that_root_lends_by_a_group_is_read_and_one_that_everybody_may_read_is_not(shared):
    key = write(shared / "key", mode=0o440)
    os.chown(key, 0, NOBODY)
    with as_user(NOBODY):
        assert read(key, is_secret=True) == b"content"
    key.chmod(0o444)
    with as_user(NOBODY), pytest.raises(Distrusted):
        read(key, is_secret=True)
    key.chmod(0o460)
    with as_user(NOBODY), pytest.raises(Distrusted):
        read(key, is_secret=True)


# Reading


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
def test_only_a_regular_file_is_opened_and_nothing_hangs(folder, kind):
    path = folder / "thing"
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        import socket  # noqa: PLC0415

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))
        path.chmod(0o600)
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(Misconfigured) as refused:
        read(path)
    assert refused.value.where == str(path)


def test_a_large_file_is_not_read_to_its_end(folder):
    path = write(folder / "file")
    os.truncate(path, MOST + 1)
    with pytest.raises(Misconfigured):
        read(path)
    os.truncate(path, MOST)
    assert len(read(path)) == MOST
    os.truncate(path, 1 << 40)  # a sparse file of a terabyte
    with pytest.raises(Misconfigured):
        read(path)


@pytest.mark.parametrize("times", [1, OPENINGS - 1, OPENINGS])
def test_what_takes_the_files_place_while_it_is_opened_is_looked_at_first(folder, monkeypatch, times):
    path = write(folder / "file")
    others = [write(folder / f"other{number}", b"other%d" % number) for number in range(times)]
    real_open = os.open

    def open_after_exchange(name, flags, *arguments, **named):
        if name == "file" and not flags & os.O_PATH and others:
            others.pop().replace(path)
        return real_open(name, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", open_after_exchange)
    if times < OPENINGS:
        assert read(path) == b"other0"
        return
    with pytest.raises(OSError, match="replaced") as refused:
        read(path)
    assert refused.value.errno == errno.ESTALE


def test_what_takes_the_files_place_and_is_not_trusted_is_not_read(folder, monkeypatch):
    path = write(folder / "file")
    other = write(folder / "other", b"other")
    other.chmod(0o666)
    real_open = os.open

    def open_after_exchange(name, flags, *arguments, **named):
        if name == "file" and not flags & os.O_PATH:
            other.replace(path)
        return real_open(name, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", open_after_exchange)
    with pytest.raises(Misconfigured, match="may be written by everybody"):
        read(path)


def test_a_link_that_takes_the_files_place_while_it_is_opened_is_not_followed(folder, monkeypatch):
    path = write(folder / "file")
    real_open = os.open

    def open_after_exchange(name, flags, *arguments, **named):
        if name == "file" and not flags & os.O_PATH:
            path.rename(folder / "moved")
            path.symlink_to("moved")
        return real_open(name, flags, *arguments, **named)

    monkeypatch.setattr(os, "open", open_after_exchange)
    with pytest.raises(OSError, match="symbolic links"):
        read(path)


def test_what_is_missing_is_said_as_the_system_says_it(folder):
    with pytest.raises(FileNotFoundError):
        read(folder / "none/file")
    with pytest.raises(NotADirectoryError):
        read(write(folder / "file") / "below")


def test_no_descriptor_is_left_open(folder):
    path = write(folder / "file")
    (folder / "loop").symlink_to("loop")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for one in (path, folder / "loop", folder / "none", folder):
        try:
            with open_trusted(one):
                pass
        except (OSError, Misconfigured):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_relative_path_is_one_of_the_working_directory(folder, monkeypatch):
    write(folder / "file")
    monkeypatch.chdir(folder)
    assert read(Path("file")) == b"content"
    folder.chmod(0o757)
    assert culprit_of(Path("file")) == str(folder)


# Folders


def test_a_folder_is_told_from_what_is_none(folder):
    verify_trusted_folder(folder, expected="a folder")
    for path in (write(folder / "file"), folder / "none", folder / "file/below"):
        with pytest.raises(Misconfigured, match="not a folder"):
            verify_trusted_folder(path, expected="a folder")


def test_a_private_file_is_no_folder_of_our_own(folder):
    with pytest.raises(Misconfigured, match="not a folder"):
        verify_own_folder(write(folder / "file", mode=0o600))


def test_a_folder_that_is_made_is_ours_and_private_whatever_the_umask_is(folder):
    before = os.umask(0)
    try:
        make_own_folder(folder / "a/b/state")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a/b/state").stat().st_mode) == 0o700
    verify_own_folder(folder / "a/b/state")
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o755


def test_nothing_is_made_where_others_may_write(folder):
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    with pytest.raises(Distrusted):
        make_own_folder(folder / "open/state")
    assert list((folder / "open").iterdir()) == []


@pytest.mark.root
def test_nothing_is_made_in_another_users_folder(folder):
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", STRANGER, STRANGER)
    with pytest.raises(Distrusted):
        make_own_folder(folder / "theirs/state")
    assert list((folder / "theirs").iterdir()) == []


@pytest.mark.root
def test_a_folder_that_somebody_else_was_faster_to_make_is_not_taken(sticky, monkeypatch):
    real_mkdir = Path.mkdir

    def be_second(path, *arguments, **named):
        real_mkdir(path, *arguments, **named)
        os.chown(path, STRANGER, STRANGER)

    monkeypatch.setattr(Path, "mkdir", be_second)
    with pytest.raises(Distrusted):
        make_own_folder(sticky / "state")


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770])
def test_a_private_folder_is_open_to_nobody(folder, mode):
    (folder / "state").mkdir()
    (folder / "state").chmod(mode)
    with pytest.raises(Distrusted, match="chmod"):
        verify_own_folder(folder / "state")


@pytest.mark.root
def test_a_folder_of_roots_is_trusted_by_others_and_is_not_their_own(shared):
    with as_user(NOBODY):
        verify_trusted(shared)
        with pytest.raises(Distrusted):
            verify_own_folder(shared, is_private=False)


@pytest.mark.root
def test_the_folder_of_a_server_may_be_its_users_and_nowhere_else(shared, sticky):
    (shared / "redis").mkdir()
    os.chown(shared / "redis", STRANGER, STRANGER)
    assert culprit_of(shared / "redis", also=STRANGER) is None
    assert culprit_of(shared / "redis", also=NOBODY) == str(shared / "redis")
    (sticky / "redis").mkdir()
    os.chown(sticky / "redis", STRANGER, STRANGER)  # any user may have created it there
    assert culprit_of(sticky / "redis", also=STRANGER) == str(sticky / "redis")
