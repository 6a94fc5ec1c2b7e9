"""Open a model's directory, and list its packages by name."""

from __future__ import annotations

import pytest

from gateway.model.errors import Refusal, Unavailable
from gateway.resource import tree as tree_module
from gateway.resource.naming import model_directory
from gateway.resource.tree import MAX_NAMES, opened_model, package_names


def _names(root, model):
    with opened_model(root, model) as place:
        return None if place is None else package_names(place.directory)


def test_a_model_is_found_by_the_directory_that_its_id_computes_to(cache):
    assert _names(cache.root, cache.model) == (["pkgA1"], [])


@pytest.mark.parametrize("model", ["ACME/cars/1", "acme/cars", "acme-cars-1", "acme/cars/1 "])
def test_an_id_that_is_only_like_it_finds_nothing(cache, model):
    assert _names(cache.root, model) is None


def test_a_slug_or_a_v1_name_given_as_id_finds_nothing(cache):
    (cache.models / "acme-cars-1-31d2d451").mkdir()
    assert _names(cache.root, "acme-cars-1-31d2d451") is None
    assert _names(cache.root, model_directory(cache.model)) is None


def test_packages_that_differ_only_by_case_are_set_apart(cache):
    for name in ("PKGA1", "pkgB", "PkgB", "pkgb", "other"):
        (cache.folder / name).mkdir()
    assert _names(cache.root, cache.model) == (["other"], ["PKGA1", "PkgB", "pkgA1", "pkgB", "pkgb"])


def test_locks_temporary_and_foreign_names_are_no_packages(cache):
    for name in ("pkg-a", ".hidden", "pkg.tmp", "nul", "p" * 255):
        (cache.folder / name).touch()
    assert _names(cache.root, cache.model) == (["pkgA1", "p" * 255], [])


@pytest.mark.parametrize("component", ["models-cache", "model"])
def test_a_link_on_the_way_down_is_not_followed(cache, component):
    folder = cache.models if component == "models-cache" else cache.folder
    folder.rename(cache.root / "moved")
    folder.symlink_to(cache.root / "moved")
    with pytest.raises(Refusal if component == "model" else Unavailable):
        _names(cache.root, cache.model)


def test_a_root_that_is_a_link_is_followed(cache, tmp_path):
    (tmp_path / "link").symlink_to(cache.root)
    assert _names(tmp_path / "link", cache.model) == (["pkgA1"], [])


def test_a_directory_with_too_many_names_is_refused_after_so_many(cache, monkeypatch):
    looked = []
    original = tree_module.each_name_in

    def each_name_in(directory):
        for name in original(directory):
            looked.append(name)
            yield name

    monkeypatch.setattr(tree_module, "each_name_in", each_name_in)
    for number in range(MAX_NAMES):
        (cache.folder / f".p{number}.materialization.lock").touch()
    with pytest.raises(Refusal):
        _names(cache.root, cache.model)
    assert len(looked) == MAX_NAMES + 1
    (cache.folder / ".p0.materialization.lock").unlink()
    (cache.folder / ".p1.materialization.lock").unlink()
    assert _names(cache.root, cache.model) == (["pkgA1"], [])
