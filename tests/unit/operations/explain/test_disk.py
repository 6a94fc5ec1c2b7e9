from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.operations.explain import disk
from gateway.resource.catalogue import CatalogueSettings, DiskCatalogue


def look_at_disk(*asked):
    return asyncio.run(disk.look_at_disk(*asked))


MODEL = "acme/cars/1"


@pytest.fixture
def cache(tmp_path):
    [file] = write_sample_cache(
        tmp_path, [SampleModel(model_id=MODEL, packages={"p1": {"w.onnx": b"weights"}})]
    )
    return DiskCatalogue(CatalogueSettings(root=tmp_path), SystemClock()), file


def test_a_model_is_there_when_one_of_its_packages_is(cache):
    catalogue, _ = cache
    assert look_at_disk(catalogue, MODEL, None, None).is_there
    assert not look_at_disk(catalogue, "acme/cars/2", None, None).is_there


def test_a_file_is_there_with_its_size_and_blob_and_no_descriptor_stays_open(cache):
    catalogue, file = cache
    before = len(list(Path("/proc/self/fd").iterdir()))
    state = look_at_disk(catalogue, MODEL, "p1", "w.onnx")
    assert state.is_there
    assert "7 bytes" in state.found
    assert file.md5 in state.found
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_package_names_its_files(cache):
    assert "w.onnx" in look_at_disk(cache[0], MODEL, "p1", None).found


def test_what_lies_there_instead_is_said(cache):
    catalogue, file = cache
    file.path.unlink()
    file.path.symlink_to("/etc/passwd")
    state = look_at_disk(catalogue, MODEL, "p1", "w.onnx")
    assert not state.is_there
    assert "a link that the engine would not have made" in state.found


def test_a_package_with_a_broken_manifest_says_so(cache):
    catalogue, file = cache
    (file.path.parent / "model_config.json").write_text("{")
    state = look_at_disk(catalogue, MODEL, "p1", None)
    assert not state.is_there
    assert "not JSON" in state.found


def test_without_a_model_nothing_is_looked_at(cache):
    assert not look_at_disk(cache[0], None, None, None).is_there
