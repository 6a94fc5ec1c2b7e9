"""The sample cache has the layout that the engine leaves on disk."""

from __future__ import annotations

import json
from hashlib import md5, sha256
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, sample_directory, write_sample_cache
from gateway.model.errors import BadNameError

CARS = SampleModel(
    model_id="acme/cars/1",
    packages={"pkgA1": {"weights.onnx": b"weights", "class_names.txt": b"car\n", "notes/read.me": b"text"}},
    unhashed=frozenset({"notes/read.me"}),
)
PACKAGE = "models-cache/v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63/pkgA1"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


def _tree(root):
    return {str(path.relative_to(root)): path for path in root.rglob("*") if not path.is_dir()}


def _mode(path):
    return path.lstat().st_mode & 0o777


@pytest.mark.parametrize(
    ("model", "directory"),
    [
        ("acme/cars/1", "v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63"),
        ("ACME/cars/1", "v2-ACME-cars-1-5ae7498aeb03ac29daa2e7f790d5dd44"),
        ("///", "v2---373843e075f1dfee4898ffe1beabd836"),
        ("żółć/1", "v2--1-ca67c21e07362d963bf08dff14b05b1a"),
    ],
)
def test_a_model_has_the_directory_that_the_engine_gives_it(model, directory):
    assert sample_directory(model) == directory


def test_every_file_of_the_engine_is_there_and_no_other(root):
    write_sample_cache(root, [CARS])
    blobs = [md5(content).hexdigest() for content in (b"weights", b"car\n")]
    found = _tree(root)
    entries = {name for name in found if name.startswith("auto-resolution-cache/")}
    (entry,) = (name for name in entries if not Path(name).name.startswith("."))
    assert entries == {entry, f"auto-resolution-cache/.{Path(entry).name}.lock"}
    assert set(found) - entries == {
        *(f"shared-blobs/{digest}" for digest in blobs),
        *(f"shared-blobs/.{digest}.lock" for digest in blobs),
        f"{Path(PACKAGE).parent}/.pkgA1.materialization.lock",
        f"{PACKAGE}/weights.onnx",
        f"{PACKAGE}/.weights.onnx.lock",
        f"{PACKAGE}/class_names.txt",
        f"{PACKAGE}/.class_names.txt.lock",
        f"{PACKAGE}/notes/read.me",
        f"{PACKAGE}/notes/.read.me.lock",
        f"{PACKAGE}/model_config.json",
        f"{PACKAGE}/.model_config.json.lock",
    }


def test_files_have_the_modes_that_the_engine_leaves_and_locks_are_empty(root):
    write_sample_cache(root, [CARS])
    for name, path in _tree(root).items():
        if name.endswith(".json"):
            assert _mode(path) == 0o600
        elif not path.is_symlink():
            assert _mode(path) == 0o644
        if name.endswith(".lock"):
            assert path.stat().st_size == 0


def test_hashed_files_are_absolute_links_and_unhashed_ones_regular(root):
    write_sample_cache(root, [CARS])
    digest = md5(b"weights").hexdigest()
    assert (root / PACKAGE / "weights.onnx").readlink() == root / "shared-blobs" / digest
    assert (root / PACKAGE / "weights.onnx").read_bytes() == b"weights"
    assert not (root / PACKAGE / "notes/read.me").is_symlink()


def test_the_manifest_is_of_version_4_and_sorted(root):
    write_sample_cache(root, [CARS])
    manifest = json.loads((root / PACKAGE / "model_config.json").read_text())
    assert manifest["offline_manifest_version"] == 4
    assert manifest["canonical_model_id"] == manifest["model_id"] == "acme/cars/1"
    named = [artifact["file_handle"] for artifact in manifest["package_artifacts"]]
    assert named == ["class_names.txt", "notes/read.me", "weights.onnx"]
    unhashed = manifest["package_artifacts"][1]
    assert (unhashed["md5_hash"], unhashed["unhashed"], unhashed["storage"]) == (None, True, "package_file")
    assert unhashed["sha256_hash"] == sha256(b"text").hexdigest()
    hashed = manifest["package_artifacts"][2]
    assert hashed == {
        "file_handle": "weights.onnx",
        "md5_hash": md5(b"weights").hexdigest(),
        "unhashed": False,
        "sha256_hash": None,
        "source_hash": None,
        "storage": "shared_blob",
    }


def test_equal_content_is_one_blob_whoever_has_it(root):
    other = SampleModel(model_id="other/1", packages={"p": {"same.onnx": b"weights"}})
    written = write_sample_cache(root, [CARS, other])
    digests = {file.handle: file.md5 for file in written}
    assert digests["same.onnx"] == digests["weights.onnx"]
    assert len([path for path in (root / "shared-blobs").iterdir() if path.name[0] != "."]) == 2


def test_what_was_written_is_reported(root):
    written = {file.handle: file for file in write_sample_cache(root, [CARS])}
    file = written["weights.onnx"]
    assert (file.model_id, file.package_id, file.size) == ("acme/cars/1", "pkgA1", 7)
    assert (file.path, file.md5) == (root / PACKAGE / "weights.onnx", md5(b"weights").hexdigest())
    assert written["notes/read.me"].md5 is None


def test_links_are_made_for_the_root_that_the_writer_had(root):
    write_sample_cache(root, [CARS], writer_root=Path("/data/engine"))
    digest = md5(b"weights").hexdigest()
    assert str((root / PACKAGE / "weights.onnx").readlink()) == f"/data/engine/shared-blobs/{digest}"
    assert (root / "shared-blobs" / digest).read_bytes() == b"weights"


def test_a_large_file_is_copied_from_where_it_lies(root, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(8 * 1024 * 1024)
    model = SampleModel(model_id="a/1", packages={"p": {"large.bin": large, "own.bin": large}},
                        unhashed=frozenset({"own.bin"}))  # fmt: skip
    (hashed, unhashed) = write_sample_cache(root, [model])
    assert hashed.size == unhashed.size == hashed.path.stat().st_size == 8 * 1024 * 1024
    assert hashed.md5 == md5(bytes(8 * 1024 * 1024)).hexdigest()
    assert large.exists()


def test_the_same_again_gives_the_same_cache(root):
    first = write_sample_cache(root, [CARS])
    inodes = {name: path.lstat().st_ino for name, path in _tree(root).items() if path.is_symlink()}
    assert write_sample_cache(root, [CARS]) == first
    assert {name: path.lstat().st_ino for name, path in _tree(root).items() if path.is_symlink()} == inodes


def test_changed_content_is_linked_anew(root):
    write_sample_cache(root, [CARS])
    write_sample_cache(
        root, [SampleModel(model_id="acme/cars/1", packages={"pkgA1": {"weights.onnx": b"2"}})]
    )
    assert (root / PACKAGE / "weights.onnx").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("model_id", "package_id", "handle"),
    [("../x", "p", "f"), ("a/1", "../p", "f"), ("a/1", "p", "../../../f"), ("a/1", "p", "/etc/passwd")],
)
def test_a_name_that_would_leave_the_cache_is_refused(root, model_id, package_id, handle):
    with pytest.raises(BadNameError):
        write_sample_cache(root, [SampleModel(model_id=model_id, packages={package_id: {handle: b""}})])
