from __future__ import annotations

import os
import stat

import pytest

from gateway.identity.secret_file import create_secret, load_secret
from gateway.model.errors import Conflict, Misconfigured


def test_a_secret_is_read_back_and_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "signing" / "links.key"
    secret = create_secret(path)
    assert len(secret) == 32
    assert load_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["links.key"]


def test_a_secret_never_takes_the_place_of_another(tmp_path):
    path = tmp_path / "links.key"
    secret = create_secret(path)
    with pytest.raises(Conflict):
        create_secret(path)
    assert load_secret(path) == secret


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "0G" * 32, "AB" * 32, f"{'00' * 32}\n\n", "\n"])
def test_what_is_no_secret_stops_the_start_and_is_not_repeated(text, tmp_path):
    path = tmp_path / "links.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Misconfigured) as caught:
        load_secret(path)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_a_secret_that_others_can_read_stops_the_start(tmp_path):
    path = tmp_path / "links.key"
    create_secret(path)
    path.chmod(0o640)
    with pytest.raises(Misconfigured, match="chmod 600"):
        load_secret(path)


def test_a_pipe_in_its_place_does_not_hang_the_start(tmp_path):
    os.mkfifo(tmp_path / "links.key", 0o600)
    with pytest.raises(Misconfigured, match="regular"):
        load_secret(tmp_path / "links.key")
