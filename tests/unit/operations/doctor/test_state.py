from __future__ import annotations

import dataclasses
import shutil

import pytest

from gateway.operations.doctor.findings import Level
from gateway.operations.doctor.state import check_state


@pytest.fixture
def settings(installed, tmp_path):
    """A state folder of its own, without a server."""
    shutil.copytree(
        installed.settings.state, tmp_path / "state", ignore=shutil.ignore_patterns("valkey", "audit")
    )
    return dataclasses.replace(installed.settings, state=tmp_path / "state")


def health(settings):
    return {one.name: one.health for one in check_state(settings)}


def test_a_state_folder_as_init_leaves_it_is_in_order(settings):
    assert set(health(settings).values()) == {Level.OK}


def test_a_state_folder_that_others_may_enter_is_a_failure(settings):
    settings.state.chmod(0o750)
    assert health(settings)["state folder"] is Level.FAIL


@pytest.mark.parametrize(
    ("name", "path"), [("pepper", "peppers/p1.pepper"), ("signing key", "signing/audit.pem")]
)
def test_a_secret_that_others_may_read_is_a_failure_of_its_own(settings, name, path):
    (settings.state / path).chmod(0o644)
    found = health(settings)
    assert found.pop(name) is Level.FAIL
    assert set(found.values()) == {Level.OK}


@pytest.mark.parametrize(
    ("name", "path"), [("pepper", "peppers/p1.pepper"), ("signing key", "signing/audit.pem")]
)
def test_a_missing_secret_is_a_failure(settings, name, path):
    (settings.state / path).unlink()
    assert health(settings)[name] is Level.FAIL


def test_no_secret_is_in_a_finding(settings):
    secrets = {(settings.state / "peppers/p1.pepper").read_text().strip()}
    secrets |= set((settings.state / "signing/audit.pem").read_text().splitlines())
    for one in check_state(settings):
        assert not any(secret in one.found + one.advice for secret in secrets)


def test_a_folder_that_was_never_set_up_fails_in_every_row_and_is_not_made(settings):
    missing = dataclasses.replace(settings, state=settings.state / "missing")
    assert set(health(missing).values()) == {Level.FAIL}
    assert not missing.state.exists()


@pytest.mark.parametrize(
    ("name", "path", "more"),
    [
        ("link key", "signing/links.key", {"public_url": "http://gateway.example"}),
        ("webhook key", "signing/hook.key", {"authority": "platform"}),
    ],
)
def test_a_key_that_is_used_is_looked_at(settings, name, path, more):
    assert name not in health(settings)
    used = dataclasses.replace(settings, **more)
    assert health(used)[name] is Level.OK
    (settings.state / path).chmod(0o644)
    assert health(used)[name] is Level.FAIL


def test_the_tls_files_are_looked_at(settings, tmp_path):
    files = {"tls_certificate": tmp_path / "tls.pem", "tls_key": tmp_path / "tls.key"}
    used = dataclasses.replace(settings, **files)
    assert health(used)["tls"] is Level.FAIL
    for file in files.values():
        file.write_text("pem")
        file.chmod(0o600)
    assert health(used)["tls"] is Level.OK
    files["tls_key"].chmod(0o644)
    assert health(used)["tls"] is Level.WARNING
    files["tls_key"].chmod(0o602)
    assert health(used)["tls"] is Level.FAIL
    assert health(dataclasses.replace(used, tls_key=None))["tls"] is Level.FAIL


def test_a_folder_on_the_way_that_others_may_write_is_a_failure(settings, tmp_path):
    tmp_path.chmod(0o777)
    assert health(settings)["state folder"] is Level.FAIL
