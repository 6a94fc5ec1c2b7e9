"""Reading and removing entries: no link is followed, nothing is trusted, nothing else is touched."""

from __future__ import annotations

import json
import os
from datetime import UTC

import pytest

from gateway.engine.credential_hash import credential_hash
from gateway.model.errors import Conflict, Unavailable
from gateway.operations.cache import resolutions
from gateway.operations.cache.resolutions import local_zone, read_entries, remove_entries, verify_removable

NAMES = [character * 64 + ".json" for character in "abcdef"]


def text(model="acme/cars/1", key="k"):
    return json.dumps(
        {
            "model_id": model,
            "model_package_id": "p1",
            "resolved_files": [],
            "task_type": "classification",
            "created_at": "2026-01-01T00:00:00",
            "credential_hash": credential_hash(key),
        }
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "auto-resolution-cache").mkdir()
    return tmp_path / "auto-resolution-cache"


def entries(folder):
    return {one.name: one for one in read_entries(folder.parent, UTC).entries}


def test_an_entry_is_read_and_what_the_engine_would_not_read_is_left_out(folder):
    (folder / NAMES[0]).write_text(text())
    for other in (f".{NAMES[1]}.lock", f".{NAMES[1]}.x.tmp", "A" * 64 + ".json", "notes.json"):
        (folder / other).write_text(text())
    (name,) = entries(folder)
    assert (name, entries(folder)[name].resolution.model) == (NAMES[0], "acme/cars/1")


def test_what_is_no_entry_is_told_and_hides_no_other(folder):
    (folder / NAMES[0]).write_text("{")
    (folder / NAMES[1]).symlink_to("/etc/hostname")
    (folder / NAMES[2]).mkdir()
    os.mkfifo(folder / NAMES[3])
    (folder / NAMES[4]).write_bytes(b"x" * (resolutions.MAX_RESOLUTION_BYTES + 1))
    (folder / NAMES[5]).write_text(text())
    found = entries(folder)
    assert [name for name in NAMES if found[name].fault] == NAMES[:5]
    assert found[NAMES[5]].resolution is not None
    assert not any(name in (one.fault or "") for name, one in found.items())


def test_a_linked_folder_is_refused(tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    (other / "auto-resolution-cache").symlink_to(folder)
    with pytest.raises(Conflict):
        read_entries(other, UTC)


def test_a_folder_without_entries_has_none(tmp_path):
    assert read_entries(tmp_path, UTC).entries == ()
    with pytest.raises(Unavailable):
        read_entries(tmp_path / "missing", UTC)


def test_how_many_are_read_is_bounded_and_said(folder, monkeypatch):
    monkeypatch.setattr(resolutions, "MAX_ENTRIES", 2)
    for name in NAMES:
        (folder / name).write_text(text())
    read = read_entries(folder.parent, UTC)
    assert (len(read.entries), read.left_out) == (2, 4)


def test_only_what_is_still_theirs_is_removed(folder):
    (folder / NAMES[0]).write_text(text(key="theirs"))
    (folder / NAMES[1]).write_text(text(key="somebody else's"))
    (folder / NAMES[2]).write_text("{")
    (folder / f".{NAMES[0]}.lock").touch()
    done = remove_entries(
        folder.parent, NAMES, UTC, lambda one: one.credential_hash == credential_hash("theirs")
    )
    assert (done.removed, done.failed) == ((NAMES[0],), ())
    assert sorted(path.name for path in folder.iterdir()) == sorted([NAMES[1], NAMES[2], f".{NAMES[0]}.lock"])


def test_what_a_link_leads_to_is_not_removed(folder, tmp_path):
    target = tmp_path / "target.json"
    target.write_text(text())
    (folder / NAMES[0]).symlink_to(target)
    assert remove_entries(folder.parent, NAMES, UTC, lambda _: True).removed == ()
    assert target.exists()
    assert (folder / NAMES[0]).is_symlink()


def test_nothing_can_be_removed_where_there_is_nothing(tmp_path):
    assert remove_entries(tmp_path, NAMES, UTC, lambda _: True).removed == ()
    with pytest.raises(Conflict):
        verify_removable(tmp_path)


def test_a_read_only_mount_is_refused_and_said_to_be_one(folder, monkeypatch):
    verify_removable(folder.parent)
    real = os.statvfs(folder)
    read_only = os.statvfs_result([*real[:8], real.f_flag | os.ST_RDONLY, *real[9:]])
    monkeypatch.setattr(os, "statvfs", lambda _: read_only)
    with pytest.raises(Conflict, match="read-only"):
        verify_removable(folder.parent)


def test_entries_are_dated_by_this_machines_zone():
    assert local_zone(0.0) is not None
