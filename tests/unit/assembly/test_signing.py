"""The signing key: written completely or not at all, never replaced; damage is reported with advice."""

from __future__ import annotations

import os

import pytest

from gateway.assembly.signing import create_signing_key, load_signing_key
from gateway.model.errors import Conflict, Misconfigured


def test_a_key_that_was_made_is_read_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "signing" / "audit.pem"
    create_signing_key(path)
    load_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_never_replaced(tmp_path):
    path = tmp_path / "audit.pem"
    create_signing_key(path)
    was = path.read_bytes()
    with pytest.raises(Conflict):
        create_signing_key(path)
    assert path.read_bytes() == was
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_could_not_be_written_whole_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Misconfigured):
        create_signing_key(tmp_path / "audit.pem")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nMC4CAQ"])
def test_half_a_key_is_refused_with_what_to_do(tmp_path, content):
    path = tmp_path / "audit.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Misconfigured, match=r"backup.*cachegate init"):
        load_signing_key(path)


def test_a_pipe_in_its_place_does_not_hang_the_start(tmp_path):
    os.mkfifo(tmp_path / "audit.pem", 0o600)
    with pytest.raises(Misconfigured, match="regular"):
        load_signing_key(tmp_path / "audit.pem")


def test_a_key_that_others_can_read_stops_the_start(tmp_path):
    create_signing_key(tmp_path / "audit.pem")
    (tmp_path / "audit.pem").chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        load_signing_key(tmp_path / "audit.pem")
