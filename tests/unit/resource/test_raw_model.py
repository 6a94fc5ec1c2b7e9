"""A model's own files as bytes: valid ones only, and never through a link."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from gateway.model.errors import Refusal
from gateway.model.names import ModelId
from gateway.resource.naming import model_directory
from gateway.resource.raw_model import MAX_RECORD_BYTES, OFFLINE_REGISTRY, DescriptionBounds

BOUNDS = DescriptionBounds(packages=4, files=20, manifest_bytes=8192)
OTHER = ModelId("acme/trucks/1")


def described(cache, model=None, **bounds):
    """The packages that can be described, and how many there was no room for."""
    found = cache.wait(cache.catalogue.raw_packages(model or cache.model, replace(BOUNDS, **bounds)))
    return list(found.packages), found.left_out


@pytest.fixture
def registry(cache):
    folder = cache.root / OFFLINE_REGISTRY
    folder.mkdir()
    return folder / f"{model_directory(cache.model)}.json"


def test_a_package_comes_with_its_manifest_and_what_is_servable(cache):
    [found], left_out = described(cache)
    assert (found.package, left_out) == (cache.package, 0)
    assert found.raw_manifest == cache.manifest.read_bytes()
    assert found.servable == cache.written.keys()
    assert found.unhashed == {"notes.txt", "extra/more.txt"}


@pytest.mark.parametrize("handle", ["notes.txt", "weights.onnx"])
def test_a_package_of_which_a_file_is_gone_is_left_out(cache, handle):
    (cache.package_folder / handle).unlink()
    assert described(cache) == ([], 0)
    (cache.package_folder / handle).symlink_to("/etc/hostname")
    assert described(cache) == ([], 0)


@pytest.mark.parametrize("bound", [{"packages": 1}, {"files": 6}, {"manifest_bytes": 1500}])
def test_what_there_is_no_room_for_is_left_out_and_counted(cache, bound):
    cache.write({"w.onnx": b"2", "v.onnx": b"3"}, package="pkgA2")
    packages, left_out = described(cache)
    assert ([one.package for one in packages], left_out) == ([cache.package, "pkgA2"], 0)
    packages, left_out = described(cache, **bound)
    assert ([one.package for one in packages], left_out) == ([cache.package], 1)


def test_packages_that_are_not_in_order_are_left_out(cache):
    cache.write({"w.onnx": b"2"}, package="pkgA2")
    manifest = cache.folder / "pkgA2" / "model_config.json"
    manifest.chmod(0o600)
    for spoilt in (b"{", json.dumps({"canonical_model_id": "acme/other/1"}).encode()):
        manifest.write_bytes(spoilt)
        assert [one.package for one in described(cache)[0]] == [cache.package]
    manifest.unlink()
    assert [one.package for one in described(cache)[0]] == [cache.package]


def test_two_packages_that_differ_by_case_are_nobodys(cache):
    cache.write({"w.onnx": b"2"}, package=cache.package.upper())
    assert described(cache)[0] == []


def test_a_model_that_is_not_there_has_none(cache):
    assert described(cache, OTHER)[0] == []


def test_a_directory_that_is_a_link_has_none(cache):
    (cache.models / model_directory(OTHER)).symlink_to(cache.folder)
    assert described(cache, OTHER)[0] == []


def test_a_record_is_found_by_the_models_directory(cache, registry):
    assert cache.catalogue.registry_record(cache.model) is None
    registry.write_bytes(b"as it lies there")
    assert cache.catalogue.registry_record(cache.model) == b"as it lies there"
    assert cache.catalogue.registry_record(OTHER) is None


def test_without_the_folder_there_is_no_record(cache):
    assert cache.catalogue.registry_record(cache.model) is None


def test_a_record_behind_a_link_is_refused(cache, registry, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_bytes(b"secret")
    registry.symlink_to(secret)
    with pytest.raises(Refusal):
        cache.catalogue.registry_record(cache.model)


def test_a_folder_that_is_a_link_is_refused(cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (cache.root / OFFLINE_REGISTRY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refusal):
        cache.catalogue.registry_record(cache.model)


def test_a_record_that_is_too_large_is_not_read(cache, registry):
    with registry.open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    with pytest.raises(Refusal):
        cache.catalogue.registry_record(cache.model)
