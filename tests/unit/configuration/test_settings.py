"""Settings: the environment overrides the file, and whatever is wrong stops the start and says where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.configuration.settings import Durability
from gateway.configuration.sources import MAX_CONFIG_BYTES, load_settings
from gateway.model.errors import Misconfigured
from gateway.model.trusted_files import Distrusted


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_without_any_variable_the_defaults_of_the_documentation_hold(tmp_path):
    settings = load_settings({})
    assert settings.state == tmp_path / ".cachegate"
    assert settings.cache_root == Path("/tmp/cache")
    assert settings.redis_url is None
    assert settings.audit_folder == tmp_path / ".cachegate" / "audit"
    assert settings.audit_durability is Durability.PROCESS


def test_the_environment_wins_over_the_file(tmp_path):
    (tmp_path / "cachegate.toml").write_text('cache_root = "/from/file"\nscan_seconds = 7\n')
    settings = load_settings({"CACHEGATE_CACHE_ROOT": "/from/environment"})
    assert settings.cache_root == Path("/from/environment")
    assert settings.scan_seconds == 7


@pytest.mark.parametrize(
    ("environment", "root"),
    [
        ({"INFERENCE_HOME": "/i", "MODEL_CACHE_DIR": "/m"}, "/i"),
        ({"MODEL_CACHE_DIR": "/m"}, "/m"),
        ({"CACHEGATE_CACHE_ROOT": "/c", "INFERENCE_HOME": "/i"}, "/c"),
    ],
)
def test_the_cache_root_is_where_the_engine_would_look(environment, root):
    assert load_settings(environment).cache_root == Path(root)


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"CACHEGATE_REDIS_ULR": "redis://x"}, "CACHEGATE_REDIS_ULR"),
        ({"CACHEGATE_AUDIT_DURABILITY": "forever"}, "CACHEGATE_AUDIT_DURABILITY"),
        ({"CACHEGATE_SCAN_SECONDS": "0"}, "CACHEGATE_SCAN_SECONDS"),
        ({"CACHEGATE_SCAN_SECONDS": "two"}, "CACHEGATE_SCAN_SECONDS"),
        ({"CACHEGATE_PIN_IN_BACKGROUND": "yes"}, "CACHEGATE_PIN_IN_BACKGROUND"),
        ({"CACHEGATE_TRUSTED_PROXIES": "10.0.0.0/33"}, "CACHEGATE_TRUSTED_PROXIES"),
        ({"CACHEGATE_ALIAS_ROOTS": "relative"}, "CACHEGATE_ALIAS_ROOTS"),
        ({"CACHEGATE_TOKEN_ENV": "LIVE"}, "CACHEGATE_TOKEN_ENV"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "_blobs"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/_blobs/"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/a/../b"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/a\r\nx: y"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/%2e%2e"}, "CACHEGATE_ACCEL_REDIRECT_PREFIX"),
        ({"CACHEGATE_CONFIG": "/nowhere.toml"}, "/nowhere.toml"),
        ({"CACHEGATE_CACHE_ROOT": "/c", "CACHEGATE_STATE": "/c/state"}, "CACHEGATE_STATE"),
        ({"CACHEGATE_CACHE_ROOT": "/c", "CACHEGATE_AUDIT_DIR": "/c"}, "CACHEGATE_AUDIT_DIR"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(environment, where):
    with pytest.raises(Misconfigured) as caught:
        load_settings(environment)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("scan_seconds = true\n", "cachegate.toml: scan_seconds"),
        ("colour = 'red'\n", "cachegate.toml: colour"),
        ("[redis]\nurl = 'x'\n", "cachegate.toml: redis"),
        ("not toml", "cachegate.toml"),
    ],
)
def test_a_wrong_line_in_the_file_is_named(tmp_path, text, where):
    (tmp_path / "cachegate.toml").write_text(text)
    with pytest.raises(Misconfigured) as caught:
        load_settings({})
    assert caught.value.where == where


def test_an_empty_variable_is_an_unset_one():
    assert load_settings({"CACHEGATE_REDIS_URL": ""}).redis_url is None


def test_nothing_is_handed_to_a_proxy_unless_it_is_set():
    assert load_settings({}).accel_redirect_prefix is None
    assert load_settings({"CACHEGATE_ACCEL_REDIRECT_PREFIX": "/_blobs"}).accel_redirect_prefix == "/_blobs"


def test_a_file_that_others_could_have_written_is_refused_or_told(tmp_path, monkeypatch):
    file = tmp_path / "cachegate.toml"
    file.write_text("scan_seconds = 7\n")
    file.chmod(0o666)
    for environment in ({}, {"CACHEGATE_CONFIG": str(file)}):
        with pytest.raises(Distrusted, match="CACHEGATE_CONFIG") as refused:
            load_settings(environment)
        assert refused.value.where == str(file)
        told = []
        assert load_settings(environment, on_distrust=told.append).scan_seconds == 7
        assert [one.culprit for one in told] == [str(file)]


def test_a_file_in_a_working_directory_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "cachegate.toml").write_text("scan_seconds = 7\n")
    tmp_path.chmod(0o777)
    with pytest.raises(Distrusted):
        load_settings({})
    (tmp_path / "cachegate.toml").unlink()
    assert load_settings({}).scan_seconds == 1


@pytest.mark.parametrize("kind", ["dangling link", "folder", "fifo"])
def test_whatever_lies_there_under_the_name_is_not_passed_over(tmp_path, kind):
    file = tmp_path / "cachegate.toml"
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("nowhere")
    with pytest.raises(Misconfigured):
        load_settings({})


def test_a_file_without_an_end_is_not_read(tmp_path):
    (tmp_path / "cachegate.toml").write_text("")
    os.truncate(tmp_path / "cachegate.toml", MAX_CONFIG_BYTES + 1)
    with pytest.raises(Misconfigured, match="too large"):
        load_settings({})


def test_rules_in_the_working_directory_are_the_ones_even_behind_a_link_that_leads_nowhere(tmp_path):
    assert load_settings({}).policies != tmp_path / "policies"
    (tmp_path / "policies").symlink_to("nowhere")
    assert load_settings({}).policies == tmp_path / "policies"
