"""The folder that holds all secrets is private and its user's own, or nothing starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.configuration.settings import Settings
from gateway.model.errors import Misconfigured
from gateway.operations.state_folder import make_state, unusable_files, verify_state
from tests.conftest import as_user

STRANGER = 61234


@pytest.fixture
def settings(tmp_path):
    return Settings(state=tmp_path / "state")


def inner_folders(settings):
    return settings.pepper_folder, settings.signing_key_file.parent, settings.pins_folder


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o707, 0o2770, 0o701])
def test_a_folder_that_others_may_enter_is_refused_with_the_remedy(settings, mode):
    settings.state.mkdir()
    settings.state.chmod(mode)
    for refuse in (verify_state, make_state):
        with pytest.raises(Misconfigured, match=r"chmod (700|go-w)") as refused:
            refuse(settings)
        assert refused.value.where == str(settings.state)


def test_a_folder_that_is_made_is_private_and_one_that_is_missing_is_not_made_by_looking(settings):
    verify_state(settings)
    assert not settings.state.exists()
    make_state(settings)
    verify_state(settings)
    assert settings.state.stat().st_mode & 0o777 == 0o700


def test_a_file_in_its_place_is_refused(settings):
    settings.state.write_text("")
    for refuse in (verify_state, make_state):
        with pytest.raises(Misconfigured):
            refuse(settings)


def test_a_folder_below_one_that_others_may_write_is_refused_and_not_made(settings, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(Misconfigured):
        make_state(settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_folder_of_another_users_is_refused_with_whom_to_run_it_as(settings):
    make_state(settings)
    os.chown(settings.state, STRANGER, STRANGER)
    for refuse in (verify_state, make_state):
        with pytest.raises(
            Misconfigured, match=f"sudo -u '#{STRANGER}' env CACHEGATE_STATE={settings.state}"
        ):
            refuse(settings)


@pytest.mark.root
def test_a_user_with_a_name_is_called_by_it(settings):
    make_state(settings)
    os.chown(settings.state, 1, 1)
    with pytest.raises(Misconfigured, match=r"belongs to daemon \(uid 1\).*sudo -u daemon "):
        verify_state(settings)


@pytest.mark.root
@pytest.mark.parametrize("is_elsewhere", [True, False])
def test_an_audit_folder_of_another_users_is_refused(tmp_path, is_elsewhere):
    settings = Settings(state=tmp_path / "state", audit_dir=tmp_path / "audit" if is_elsewhere else None)
    make_state(settings)
    settings.audit_folder.mkdir()
    os.chown(settings.audit_folder, STRANGER, STRANGER)
    with pytest.raises(Misconfigured, match="chown -R 0 ") as refused:
        verify_state(settings)
    assert refused.value.where == str(settings.audit_folder)


def test_an_audit_folder_that_others_may_write_is_refused(tmp_path):
    settings = Settings(state=tmp_path / "state", audit_dir=tmp_path / "audit")
    make_state(settings)
    settings.audit_folder.mkdir()
    settings.audit_folder.chmod(0o777)
    with pytest.raises(Misconfigured) as refused:
        verify_state(settings)
    assert refused.value.where == str(settings.audit_folder)


def test_files_of_our_own_are_all_usable(settings):
    make_state(settings)
    (settings.state / "history.json").write_text("")
    assert unusable_files(settings) == []


@pytest.mark.root
def test_our_folders_in_it_are_ours_and_secrets_may_be_roots(settings):
    make_state(settings)
    for folder in (*inner_folders(settings), settings.state / "valkey"):
        folder.mkdir()
        verify_state(settings)
        os.chown(folder, STRANGER, STRANGER)
        with pytest.raises(Misconfigured, match=f"uid {STRANGER}") as refused:
            verify_state(settings)
        assert refused.value.where == str(folder)
        os.chown(folder, 0, 0)
        folder.chmod(0o777)
        with pytest.raises(Misconfigured, match="0777"):
            verify_state(settings)
        folder.chmod(0o700)


@pytest.fixture
def enterable():
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="cg-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.root
def test_what_we_write_to_has_to_be_our_own_and_secrets_may_be_roots(enterable):
    settings = Settings(state=enterable / "state")
    settings.state.mkdir(0o700)
    os.chown(settings.state, STRANGER, STRANGER)
    for folder in inner_folders(settings):
        folder.mkdir(0o755)
    with as_user(STRANGER):
        with pytest.raises(Misconfigured) as refused:
            verify_state(settings)
        assert refused.value.where == str(settings.pins_folder)
        settings.pins_folder.rename(settings.state / "elsewhere")
        verify_state(settings)


@pytest.mark.root
def test_a_folder_of_the_embedded_server_counts_only_where_there_is_one(settings):
    make_state(settings)
    (settings.state / "valkey").mkdir()
    os.chown(settings.state / "valkey", STRANGER, STRANGER)
    with pytest.raises(Misconfigured):
        verify_state(settings)
    verify_state(replace(settings, redis_url="redis://127.0.0.1"))


@pytest.mark.parametrize("number", range(3))
def test_a_folder_of_ours_that_cannot_be_looked_at_is_refused(settings, number):
    make_state(settings)
    folder = inner_folders(settings)[number]
    folder.symlink_to(folder)
    with pytest.raises(Misconfigured) as refused:
        verify_state(settings)
    assert refused.value.where == str(folder)
