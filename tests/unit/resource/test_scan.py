"""Which models a scan finds, and what it reports about everything else."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.adapters.sample_cache import SampleModel, write_sample_cache
from gateway.resource.manifests import Manifests
from gateway.resource.naming import model_directory
from gateway.resource.scan import MAX_REPORTED, Looking
from gateway.resource.scan import scan as scan_cache


class _Always:
    """A clock by which every change time is old enough to be reliable."""

    def now(self):
        return 4e9


def scan(root, known):
    return scan_cache(root, known, Looking(manifests=Manifests(_Always(), reads_all_here=True), now=4e9))


def _reasons(survey):
    return {skipped.where: skipped.why for skipped in survey.skipped}


def _without_ids(cache):
    """The manifest of a version that did not name the package's model."""
    document = json.loads(cache.manifest.read_text())
    del document["canonical_model_id"], document["model_id"]
    cache.manifest.write_text(json.dumps(document))


@contextmanager
def _as_nobody():
    """Without the privilege to read files of other users."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_root():
    """A cache root that other users can reach, unlike pytest's own temporary folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_model_is_known_by_its_manifest(cache):
    survey = scan(cache.root, {})
    assert (survey.models, survey.packages, survey.skipped) == (("acme/cars/1",), 1, ())
    assert (survey.is_root_present, survey.is_readable, survey.problem) == (True, True, None)


def test_models_are_sorted_by_their_ids(cache):
    for model in ("zoo/1", "Acme/1", "acme/cars/-", "żółć/1"):
        cache.write({"weights.onnx": b"x"}, model=model)
    assert scan(cache.root, {}).models == ("Acme/1", "acme/cars/-", "acme/cars/1", "zoo/1", "żółć/1")


def test_a_model_whose_manifest_does_not_say_is_known_by_a_fact_only(cache):
    _without_ids(cache)
    nobody = scan(cache.root, {})
    assert nobody.models == ()
    assert "no fact" in _reasons(nobody)[cache.folder.name]
    assert scan(cache.root, {model_directory(cache.model): cache.model}).models == ("acme/cars/1",)


def test_a_known_id_without_a_directory_is_no_model_on_disk(cache):
    assert scan(cache.root, {model_directory("zoo/1"): "zoo/1"}).models == ("acme/cars/1",)


def test_a_manifest_that_claims_an_id_of_another_directory_names_nothing(cache):
    cache.folder.rename(cache.models / model_directory("victim/1"))
    survey = scan(cache.root, {})
    assert survey.models == ()
    known = scan(cache.root, {model_directory("victim/1"): "victim/1"})
    assert (known.models, known.packages) == ((), 0)
    assert "another model" in known.skipped[0].why


def test_a_v1_directory_with_a_valid_manifest_is_nobodys(cache):
    cache.folder.rename(cache.models / "acme-cars-1-31d2d451")
    survey = scan(cache.root, {model_directory(cache.model): cache.model})
    assert survey.models == ()
    assert "naming" in _reasons(survey)["acme-cars-1-31d2d451"]


def test_what_is_not_servable_is_reported_with_its_reason(cache, secret):
    for package in ("half", "broken", "case", "Case"):
        cache.write({"weights.onnx": b"x"}, package=package)
    (cache.folder / "half" / "model_config.json").unlink()
    (cache.folder / "broken" / "model_config.json").write_bytes(b"{")
    (cache.folder / "linked").symlink_to(secret.parent)
    survey = scan(cache.root, {})
    reasons = {where.rpartition("/")[2]: why for where, why in _reasons(survey).items()}
    assert (survey.models, survey.packages, survey.unservable_packages) == (("acme/cars/1",), 1, 2)
    assert survey.unreadable_manifests == 0
    assert "manifest" in reasons["half"]
    assert "JSON" in reasons["broken"]
    assert "link" in reasons["linked"]
    assert "case" in reasons["case"]
    assert "case" in reasons["Case"]


def test_a_model_directory_that_is_a_link_is_reported_and_not_entered(cache):
    cache.folder.rename(cache.root / "moved")
    cache.folder.symlink_to(cache.root / "moved")
    survey = scan(cache.root, {})
    assert survey.models == ()
    assert "link" in _reasons(survey)[cache.folder.name]


def test_a_missing_root_is_reported(tmp_path):
    survey = scan(tmp_path / "gone", {})
    assert (survey.is_root_present, survey.is_readable, survey.models) == (False, False, ())
    assert "does not exist" in survey.problem


def test_an_empty_root_is_readable_and_has_no_models(tmp_path):
    survey = scan(tmp_path, {})
    assert (survey.is_root_present, survey.is_readable, survey.problem) == (True, True, None)
    assert survey.models == ()


def test_a_root_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "file").touch()
    survey = scan(tmp_path / "file", {})
    assert (survey.is_readable, survey.models) == (False, ())
    assert survey.problem


def test_models_cache_that_is_a_link_is_reported(cache):
    cache.models.rename(cache.root / "moved")
    cache.models.symlink_to(cache.root / "moved")
    survey = scan(cache.root, {})
    assert (survey.is_root_present, survey.is_readable, survey.models) == (True, False, ())
    assert "models-cache" in survey.problem


def test_a_cache_that_may_not_be_listed_is_reported(public_root):
    write_sample_cache(public_root, [SampleModel(model_id="a/1", packages={"p": {"f": b""}})])
    (public_root / "models-cache").chmod(0o000)
    with _as_nobody():
        survey = scan(public_root, {})
    (public_root / "models-cache").chmod(0o755)
    assert (survey.is_root_present, survey.is_readable) == (True, False)
    assert "not readable" in survey.problem


def test_a_manifest_that_may_not_be_read_is_counted(public_root):
    write_sample_cache(public_root, [SampleModel(model_id="a/1", packages={"p": {"f": b""}})])
    (manifest,) = public_root.glob("models-cache/*/p/model_config.json")
    manifest.chmod(0o000)
    with _as_nobody():
        survey = scan(public_root, {})
    assert (survey.models, survey.unreadable_manifests) == ((), 1)
    assert "not readable" in survey.skipped[0].why


def test_a_cache_of_which_no_manifest_may_be_read_is_no_empty_cache(public_root):
    for model in ("a/1", "b/1"):
        write_sample_cache(public_root, [SampleModel(model_id=model, packages={"p": {"f": b""}})])
    one, other = public_root.glob("models-cache/*/p/model_config.json")
    one.chmod(0o000)
    other.chmod(0o000)
    with _as_nobody():
        assert not scan(public_root, {}).is_readable
    other.chmod(0o644)
    with _as_nobody():
        survey = scan(public_root, {})
    assert (survey.is_readable, survey.packages, survey.unreadable_manifests) == (True, 1, 1)


def test_a_report_names_the_first_of_many_and_counts_all(cache):
    for number in range(MAX_REPORTED + 5):
        (cache.models / f"foreign{number}").mkdir()
    survey = scan(cache.root, {})
    assert len(survey.skipped) == MAX_REPORTED
    assert survey.skipped_total == MAX_REPORTED + 5
    assert survey.models == ("acme/cars/1",)


def test_a_name_that_is_no_text_is_reported_in_ascii(cache):
    (cache.models / os.fsdecode(b"\xff\n")).mkdir()
    assert [skipped.where for skipped in scan(cache.root, {}).skipped] == ["\\udcff\\n"]
