"""Checks of paths: what counts as the same, what is seen once in an iteration, when a check is reliable."""

from __future__ import annotations

import os

import pytest

from gateway.model.pins import identity_of
from gateway.resource.disk_checks import RELIABLE_AFTER_SECONDS, SeenOnDisk, are_reliable, find_identity


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def check(path, *, follows=False):
    return str(path), follows, find_identity(str(path), follows=follows)


def rewrite_quietly(path):
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path):
    other = path.with_name("other")
    other.write_bytes(b"content")
    other.replace(path)


def become_link(path):
    aside = path.with_name("aside")
    path.rename(aside)
    path.symlink_to(aside)


@pytest.mark.parametrize(
    "change",
    [
        rewrite_quietly,
        replace,
        become_link,
        lambda path: os.truncate(path, 3),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.unlink(),
        lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    ],
)
def test_whatever_changed_at_a_path_is_seen(change, file):
    made = check(file)
    assert SeenOnDisk().agree([made])
    change(file)
    assert not SeenOnDisk().agree([made])


def test_an_identity_is_device_inode_size_and_both_times(file):
    found = file.stat()
    assert find_identity(str(file), follows=True) == identity_of(found)
    assert identity_of(found) == (
        found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns,
    )  # fmt: skip


def test_a_link_is_followed_only_where_the_check_says_so(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    of_link, of_target = check(link), check(link, follows=True)
    assert of_target[2] == find_identity(str(file), follows=False) != of_link[2]
    other = tmp_path / "other"
    other.write_bytes(b"content")
    link.unlink()
    link.symlink_to(other)
    assert not SeenOnDisk().agree([of_link])
    assert not SeenOnDisk().agree([of_target])


def test_nothing_can_be_seen_where_there_is_nothing(file, tmp_path):
    assert find_identity(str(tmp_path / "none"), follows=True) is None
    assert find_identity(str(file / "below"), follows=False) is None
    assert not SeenOnDisk().agree([(str(tmp_path / "none"), True, (1, 2, 3, 4, 5))])


def test_what_was_seen_once_is_not_looked_at_again_and_both_ways_of_looking_are_kept_apart(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    followed, itself, looks = check(link, follows=True), check(link), SeenOnDisk()
    assert looks.agree([followed])
    assert SeenOnDisk().agree([followed, itself])
    link.unlink()
    assert looks.agree([followed])
    assert not looks.agree([itself])
    assert not SeenOnDisk().agree([followed])


def test_one_path_that_differs_is_enough(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"1")
    checks = [check(file), check(other)]
    other.unlink()
    assert not SeenOnDisk().agree(checks)
    assert not SeenOnDisk().agree(reversed(checks))
    assert SeenOnDisk().agree(checks[:1])


@pytest.mark.parametrize(
    ("ago", "is_reliable"),
    [(RELIABLE_AFTER_SECONDS + 1, True), (RELIABLE_AFTER_SECONDS - 1, False), (-60, False)],
)
def test_what_changed_a_moment_ago_or_in_the_future_is_not_relied_on(ago, is_reliable, file):
    now = file.stat().st_ctime + ago
    assert are_reliable([check(file)], now) is is_reliable


def test_an_mtime_may_be_any_date(file):
    os.utime(file, (4_000_000_000, 4_000_000_000))
    assert are_reliable([check(file)], file.stat().st_ctime + RELIABLE_AFTER_SECONDS + 1)
