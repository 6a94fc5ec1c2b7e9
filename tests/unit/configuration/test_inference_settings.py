"""The front door's settings, as values that are valid."""

from __future__ import annotations

import pytest

from gateway.configuration.service_key import load_service_key
from gateway.configuration.sources import load_settings
from gateway.model.errors import Misconfigured
from gateway.model.inference import InferenceServer


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def load(**values):
    return load_settings({f"CACHEGATE_INFERENCE_{name}": value for name, value in values.items()})


def test_without_settings_there_is_no_front_door():
    settings = load()
    assert settings.inference_url == ()
    assert settings.inference_mount == "/inference"
    assert settings.inference_max_body_megabytes == 32
    assert settings.inference_origins == ()
    assert load_service_key(settings) is None


def test_servers_are_read_with_the_tenants_that_they_are_bound_to():
    found = load(URL=" http://A:9001/, north=http://10.0.0.6:80 ,https://models.example/x,")
    assert found.inference_url == (
        InferenceServer(url="http://a:9001"),
        InferenceServer(url="http://10.0.0.6", tenant="north"),
        InferenceServer(url="https://models.example/x"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.5:9001",
        "ftp://a",
        "http://user:secret@a",
        "http://a/?x=y",
        "http://a/#x",
        "north=",
        "=http://a",
        "nor th=http://a",
        "north=south=http://a",
        "http://a,http://A:80/",  # one server twice
        "http://a,north=http://a",  # bound and not bound: tenants would meet there
        "north=http://a,south=http://a",
        "http://a/../b",
    ],
)
def test_what_names_no_server_or_one_twice_stops_the_start(text):
    with pytest.raises(Misconfigured) as caught:
        load(URL=text)
    assert caught.value.where == "CACHEGATE_INFERENCE_URL"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("text", "mount"), [("/", ""), ("/a/b", "/a/b"), ("/inference", "/inference")])
def test_a_mount_is_a_path_and_the_root_is_empty(text, mount):
    assert load(MOUNT=text).inference_mount == mount


@pytest.mark.parametrize("text", ["inference", "/a/", "/a//b", "/../a", "/a%2fb", "//", "/a?b"])
def test_another_mount_stops_the_start(text):
    with pytest.raises(Misconfigured):
        load(MOUNT=text)


def test_origins_are_in_the_spelling_of_browsers():
    found = load(ORIGINS="https://App.Example, http://localhost:3000,https://b:443")
    assert found.inference_origins == ("https://app.example", "http://localhost:3000", "https://b")


@pytest.mark.parametrize("text", ["*", "https://a/", "https://a/b", "null", "a.example", "https://*.example"])
def test_what_is_no_origin_stops_the_start(text):
    with pytest.raises(Misconfigured):
        load(ORIGINS=text)


def test_the_key_is_shown_nowhere():
    settings = load(KEY="a-secret")
    assert load_service_key(settings) == "a-secret"
    assert "a-secret" not in repr(settings)


@pytest.mark.parametrize("text", ["a secret", "sécret", "secret\n", "s" * 513])
def test_what_is_no_key_stops_the_start_and_is_not_repeated(text, tmp_path):
    with pytest.raises(Misconfigured) as caught:
        load(KEY=text)
    assert text.strip() not in str(caught.value)
    file = tmp_path / "key"
    file.write_text(text + "\n")
    file.chmod(0o600)
    with pytest.raises(Misconfigured) as caught:
        load_service_key(load(KEY_FILE=str(file)))
    assert text.strip() not in str(caught.value)


def test_the_key_is_read_from_its_file(tmp_path):
    file = tmp_path / "key"
    for text in ("a-secret", "a-secret\n", "a-secret\r\n"):
        file.write_bytes(text.encode())
        file.chmod(0o600)
        assert load_service_key(load(KEY_FILE=str(file))) == "a-secret"


def test_a_key_file_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_text("a-secret\n")
    file.chmod(0o640)
    with pytest.raises(Misconfigured):
        load_service_key(load(KEY_FILE=str(file)))


def test_a_missing_key_file_is_refused_and_not_taken_for_no_key(tmp_path):
    with pytest.raises(Misconfigured):
        load_service_key(load(KEY_FILE=str(tmp_path / "missing")))


def test_a_key_and_a_key_file_contradict_each_other(tmp_path):
    with pytest.raises(Misconfigured) as caught:
        load(KEY="a-secret", KEY_FILE=str(tmp_path / "key"))
    assert caught.value.where == "CACHEGATE_INFERENCE_KEY_FILE"
