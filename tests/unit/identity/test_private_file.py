"""Private files: written completely or not at all, readable by their owner alone, never overwritten."""

from __future__ import annotations

import os

import pytest

from gateway.identity.private_file import load_private, write_once
from gateway.model.errors import Conflict, Misconfigured


def test_what_was_written_is_read_back(tmp_path):
    write_once(tmp_path / "folder" / "key", b"content")
    assert load_private(tmp_path / "folder" / "key") == b"content"


def test_the_second_writer_is_told_and_changes_nothing(tmp_path):
    write_once(tmp_path / "key", b"first")
    with pytest.raises(Conflict):
        write_once(tmp_path / "key", b"second")
    assert load_private(tmp_path / "key") == b"first"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


def test_what_could_not_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Misconfigured, match="No space left"):
        write_once(tmp_path / "key", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_said_with_what_to_do(tmp_path):
    with pytest.raises(Misconfigured, match="cachegate init"):
        load_private(tmp_path / "key")
