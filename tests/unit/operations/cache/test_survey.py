from __future__ import annotations

import getpass
import os
import subprocess

import pytest

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.operations.cache import survey
from gateway.operations.cache.survey import find_fresh_resolutions, survey_cache
from gateway.operations.doctor.cache import judge_blobs
from gateway.operations.doctor.findings import Level

MODELS = [
    SampleModel(model_id="acme/cars/1", packages={"p1": {"w.onnx": b"x", "deep/er/c.txt": b"y"}}),
    SampleModel(model_id="acme/signs/1", packages={"p2": {"w.onnx": b"x"}}),
]


@pytest.fixture
def root(tmp_path):
    write_sample_cache(tmp_path, MODELS)
    return tmp_path


def test_links_are_counted_by_the_root_that_they_name(root):
    write_sample_cache(
        root, [SampleModel(model_id="other/1", packages={"p3": {"w.onnx": b"z"}})], writer_root="/data/cache"
    )
    assert survey_cache(root).link_roots == {str(root): 3, "/data/cache": 1}


def test_manifests_are_counted_with_their_owner(root):
    seen = survey_cache(root)
    assert seen.manifests == 2
    assert seen.manifest_owners == {getpass.getuser()}


def test_directories_of_the_former_naming_are_named_and_not_entered(root):
    old = root / "models-cache" / "acme-cars-1-31d2d451" / "p1"
    old.mkdir(parents=True)
    (old / "w.onnx").symlink_to("/elsewhere/shared-blobs/x")
    seen = survey_cache(root)
    assert seen.old_directories == {"acme-cars-1-31d2d451"}
    assert "/elsewhere" not in seen.link_roots


def test_packages_that_differ_by_case_only_are_named(root):
    (root / "models-cache" / sample_directory("acme/cars/1") / "P1").mkdir()
    names = {name.rpartition("/")[2] for name in survey_cache(root).ambiguous_packages}
    assert names == {"p1", "P1"}


def test_a_link_to_a_directory_is_not_followed(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "trap").symlink_to("/trap/shared-blobs/x")
    package = root / "models-cache" / sample_directory("acme/cars/1") / "p1"
    (package / "door").symlink_to(outside)
    assert "/trap" not in survey_cache(root).link_roots


def test_names_that_somebody_else_chose_are_made_printable(root):
    (root / "models-cache" / "\x1b[31mred").mkdir()
    assert all(name.isprintable() for name in survey_cache(root).old_directories)


def test_a_cache_without_models_is_an_empty_survey(tmp_path):
    assert survey_cache(tmp_path).manifests == 0


def test_only_resolutions_since_then_are_counted(root):
    entries = sorted((root / "auto-resolution-cache").glob("*.json"))
    os.utime(entries[0], (1000, 1000))
    assert find_fresh_resolutions(root, 2000) == len(entries) - 1
    assert find_fresh_resolutions(root, 0) == len(entries)
    assert find_fresh_resolutions(root / "models-cache", 0) == 0


def test_folders_within_folders_are_entered_as_deep_as_a_file_may_lie_and_no_deeper(root):
    package = root / "models-cache" / sample_directory("acme/cars/1") / "p1"
    above = os.open(package, os.O_PATH)
    for _ in range(1_200):
        os.mkdir("d", dir_fd=above)
        below = os.open("d", os.O_PATH, dir_fd=above)
        os.close(above)
        above = below
    os.symlink("/deep/shared-blobs/x", "link", dir_fd=above)
    os.close(above)
    seen = survey_cache(root)
    subprocess.run(["rm", "-r", package / "d"], check=True)  # Python, and so pytest, cannot remove it
    assert seen.manifests == 2
    assert "/deep" not in seen.link_roots


def test_so_many_names_are_looked_at_and_no_more(root, monkeypatch):
    monkeypatch.setattr(survey, "MAX_NAMES", 10)
    for number in range(50):
        (root / "models-cache" / sample_directory("acme/cars/1") / f"p{number:03}").mkdir()
    assert survey_cache(root).names < 100


def test_a_blob_that_cannot_be_hashed_is_named_with_its_reason(root):
    blobs = root / "shared-blobs"
    assert (survey_cache(root).bad_blobs, survey_cache(root).blobs) == ({}, 2)
    os.mkfifo(blobs / ("a" * 32))
    (blobs / ("b" * 32)).symlink_to("/etc/hostname")
    (blobs / ("c" * 32)).mkdir()
    (blobs / ".lock").mkdir()
    (blobs / os.fsdecode(b"\xff" * 32)).mkdir()
    assert survey_cache(root).bad_blobs.keys() == {"a" * 32, "b" * 32, "c" * 32}
    found = judge_blobs(survey_cache(root))
    assert (found.health, "a" * 32 in found.found) == (Level.WARNING, True)


def test_a_blob_that_is_too_large_to_be_hashed_ahead_is_named(root, monkeypatch):
    monkeypatch.setattr(survey, "MAX_AHEAD_BYTES", 10)
    (root / "shared-blobs" / ("a" * 32)).write_bytes(b"x" * 11)
    assert survey_cache(root).bad_blobs.keys() == {"a" * 32}
