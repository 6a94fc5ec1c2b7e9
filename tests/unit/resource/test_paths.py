"""The path grammar, by the cases of tests/cases/paths.json, which HTTP runs again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.model.access import Resource, ResourceKind
from gateway.model.errors import BadNameError, Reason, Refusal
from gateway.model.names import FileHandle, Md5, ModelId, PackageId
from gateway.resource import paths
from gateway.resource.paths import (
    MAX_REMEMBERED_BYTES,
    blob_link,
    download_link,
    locate,
    model_link,
    shape_of,
)

CASES = json.loads((Path(__file__).parents[2] / "cases" / "paths.json").read_text("utf-8"))["cases"]


def _raw_path(case):
    if "repeat" in case:
        prefix, unit, times, suffix = case["repeat"]
        return (prefix + unit * times + suffix).encode()
    return case["path"].encode()


def _resource(names):
    names = dict(names)
    if "model_of" in names:
        unit, times = names.pop("model_of")
        names["model"] = unit * times
    return Resource(**{**names, "kind": ResourceKind(names["kind"])})


def _of(outcome):
    return [pytest.param(case, id=case["name"]) for case in CASES if outcome in case]


def test_the_cases_have_different_names_and_one_outcome_each():
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(("names" in case) != ("refused" in case) for case in CASES)


@pytest.mark.parametrize("case", _of("names"))
def test_a_path_names_what_its_case_says(case):
    assert locate(_raw_path(case)) == _resource(case["names"])


@pytest.mark.parametrize("case", _of("refused"))
def test_a_hostile_path_is_refused_for_its_reason(case):
    with pytest.raises(Refusal) as refusal:
        locate(_raw_path(case))
    assert refusal.value.reason == Reason(case["refused"])


@pytest.mark.parametrize("octet", [*range(0x21), 0x7F, ord("?"), ord("#")])
def test_a_raw_byte_that_ends_a_path_elsewhere_is_refused(octet):
    for prefix in (b"/v1/models/a", b"/v1/models/a/-/p", b"/v1/models/a/-/p/f", b"/v1/blobs/"):
        with pytest.raises(Refusal) as refusal:
            locate(prefix + bytes([octet]) + b"b")
        assert refusal.value.reason == Reason.MALFORMED_PATH


@pytest.mark.parametrize(
    "raw_path", [b"/", b"", b"/v1", b"/v1/blobs", b"/v1/modelsx", b"/V1/models", b"/v2/models/a"]
)
def test_a_path_outside_the_content_face_has_no_route(raw_path):
    with pytest.raises(Refusal) as refusal:
        locate(raw_path)
    assert refusal.value.reason == Reason.NO_ROUTE


@pytest.mark.parametrize("case", [*_of("names"), *_of("refused")])
def test_the_shape_of_a_path_never_contradicts_its_name(case):
    raw_path = _raw_path(case)
    shape = shape_of(raw_path)  # whatever the path is, this does not raise
    if case.get("names", {}).get("kind") in {"model", "package", "file"}:
        assert shape == case["names"]["kind"]


@pytest.mark.parametrize(
    ("raw_path", "shape"),
    [
        (b"/v1/models/x", ResourceKind.MODEL),
        (b"/v1/models/x/-", ResourceKind.MODEL),
        (b"/v1/models/x/%2D/y", ResourceKind.MODEL),
        (b"/v1/models/x/-/", ResourceKind.PACKAGE),
        (b"/v1/models/-/x", ResourceKind.PACKAGE),
        (b"/v1/models/x/-/p/", ResourceKind.FILE),
        (b"/v1/models/x/-/\xff%/\xff", ResourceKind.FILE),
    ],
)
def test_a_shape_is_read_off_the_raw_boundaries_alone(raw_path, shape):
    assert shape_of(raw_path) == shape


def test_a_link_escapes_what_would_end_an_id_or_a_path():
    link = model_link(ModelId("a b/-/c%d?e#f/żó/-"), PackageId("pkg"), FileHandle("x/-/y.bin"))
    assert link == "/v1/models/a%20b/%2D/c%25d%3Fe%23f/%C5%BC%C3%B3/%2D/-/pkg/x/-/y.bin"


def test_a_blob_link_names_the_blob():
    md5 = Md5("b1946ac92492d2347c6235b4d2611184")
    assert locate(blob_link(md5).encode()) == Resource(kind=ResourceKind.BLOB, md5=md5)


def test_a_file_outside_a_package_has_no_link():
    with pytest.raises(BadNameError):
        model_link(ModelId("a"), None, FileHandle("f"))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("acme/cars/1", "acme/cars/1"),
        ("a b/c%d/żó/~", "a%20b/c%25d/%C5%BC%C3%B3/~"),
        ("a/-/b", "a%2F-%2Fb"),
        ("-/a/-b/-", "-%2Fa/-b%2F-"),
        ("-/-", "-%2F-"),
        ("-", "%2D"),
    ],
)
def test_a_download_link_keeps_a_dash_segment_off_raw_slashes_and_leaves_it_bare(model, path):
    link = download_link(ModelId(model), PackageId("pkg"), FileHandle("x/-/y.bin"))
    assert link == f"/d/{path}/-/pkg/x/-/y.bin"


@pytest.mark.parametrize(
    ("length", "is_remembered"), [(MAX_REMEMBERED_BYTES, 1), (MAX_REMEMBERED_BYTES + 1, 0)]
)
def test_only_a_short_path_is_remembered(length, is_remembered):
    escaped = b"%61" * 150
    paths._parse_remembered.cache_clear()
    found = locate(b"/v1/models/" + escaped + b"b" * (length - len(escaped)))
    assert found.model == "a" * 150 + "b" * (length - len(escaped))
    assert paths._parse_remembered.cache_info().currsize == is_remembered


def test_a_refusal_is_not_remembered():
    paths._parse_remembered.cache_clear()
    with pytest.raises(Refusal):
        locate(b"/v1/models/a//b")
    assert paths._parse_remembered.cache_info().currsize == 0
