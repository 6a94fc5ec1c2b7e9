"""The engine's directory names, compared with the engine's own test vectors."""

from __future__ import annotations

import pytest

from gateway.model.names import ModelId
from gateway.resource.naming import is_v2_directory, model_directory

VECTORS = {
    "acme/cars/1": "v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63",
    "ACME/cars/1": "v2-ACME-cars-1-5ae7498aeb03ac29daa2e7f790d5dd44",
    "///": "v2---373843e075f1dfee4898ffe1beabd836",
    "żółć/1": "v2--1-ca67c21e07362d963bf08dff14b05b1a",
}


@pytest.mark.parametrize(("model", "directory"), VECTORS.items())
def test_a_model_has_the_directory_that_the_engine_gives_it(model, directory):
    assert model_directory(ModelId(model)) == directory


@pytest.mark.parametrize("directory", VECTORS.values())
def test_every_v2_name_is_known_as_one(directory):
    assert is_v2_directory(directory)


def test_the_readable_part_is_cut_at_48_characters_and_the_digest_still_tells_ids_apart():
    # These two have the same V1 directory.
    one = model_directory(ModelId("shared-prefix-that-is-longer-than-forty-eight-chars-10497/1"))
    other = model_directory(ModelId("shared-prefix-that-is-longer-than-forty-eight-chars-19d6d/1"))
    assert one[:52] == other[:52] == "v2-shared-prefix-that-is-longer-than-forty-eight-ch-"
    assert one != other


def test_runs_of_dashes_and_underscores_collapse_and_single_underscores_stay():
    assert model_directory(ModelId("a__b_c--d/1")).startswith("v2-a-b_c-d-1-")


def test_ids_that_differ_in_unicode_form_have_different_directories():
    assert model_directory(ModelId("caf\u00e9/1")) != model_directory(ModelId("cafe\u0301/1"))


@pytest.mark.parametrize(
    "name",
    [
        "acme-cars-1-31d2d451",
        "v2-acme-cars-1-31d2d451",
        "v2-acme-cars-1-4751736A3E502D9EE0B162A4A2252D63",
        "v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63.tmp",
        "v2-acme-cars-1-4751736a3e502d9ee0b162a4a2252d63\n",
        "v2-acme/cars-4751736a3e502d9ee0b162a4a2252d63",
        "v2-4751736a3e502d9ee0b162a4a2252d63",
        f"v2-{'a' * 49}-4751736a3e502d9ee0b162a4a2252d63",
        "~acme-4751736a3e502d9ee0b162a4a2252d63",
        "..",
        "",
    ],
)
def test_no_other_name_passes_for_a_v2_directory(name):
    assert not is_v2_directory(name)


def test_a_v1_name_is_never_computed():
    assert model_directory(ModelId("acme/cars/1")) != "acme-cars-1-31d2d451"
