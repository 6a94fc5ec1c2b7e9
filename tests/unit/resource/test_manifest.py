"""The conditions on a manifest for its package to be served."""

from __future__ import annotations

import json

import pytest

from gateway.model.errors import Reason, Refusal
from gateway.model.names import FileHandle, ModelId
from gateway.resource import manifest as manifest_module
from gateway.resource.manifest import (
    MAX_FILES,
    MAX_LISTS,
    MAX_MANIFEST_BYTES,
    MAX_MEMBERS,
    MAX_OBJECTS,
    SLICE_FILES,
    Storage,
    parse_manifest,
)
from gateway.resource.unservable import MAX_FINDING_CHARACTERS, finding_of

MD5 = "b1946ac92492d2347c6235b4d2611184"


def _hashed(handle, **changes):
    fields = {"file_handle": handle, "md5_hash": MD5, "unhashed": False, "sha256_hash": None}
    return {**fields, "source_hash": None, "storage": "shared_blob", **changes}


def _unhashed(handle, **changes):
    fields = {"file_handle": handle, "md5_hash": None, "unhashed": True, "sha256_hash": "0" * 64}
    return {**fields, "source_hash": "0" * 64, "storage": "package_file", **changes}


def _parse(*artifacts, **fields):
    return parse_manifest(json.dumps({"package_artifacts": artifacts, **fields}).encode())


def _finding(raw):
    with pytest.raises(Refusal) as refusal:
        parse_manifest(raw)
    assert refusal.value.reason == Reason.UNSERVABLE
    return finding_of(refusal.value)


def test_a_manifest_of_version_4_gives_its_files_in_the_order_of_their_handles():
    manifest = _parse(
        _hashed("weights.onnx"),
        _unhashed("class_names.txt"),
        offline_manifest_version=4,
        canonical_model_id="acme/cars/1",
        model_id="acme/cars/1",
        recommended_parameters={"confidence": 0.4},
    )
    assert manifest.version == 4
    assert manifest.canonical_model_id == "acme/cars/1"
    assert [(file.handle, file.md5, file.unhashed, file.storage) for file in manifest.artifacts] == [
        ("class_names.txt", None, True, Storage.PACKAGE_FILE),
        ("weights.onnx", MD5, False, Storage.SHARED_BLOB),
    ]


def test_a_file_is_found_by_its_exact_handle():
    manifest = _parse(_hashed("a/weights.onnx"))
    assert manifest.find(FileHandle("a/weights.onnx")) is manifest.artifacts[0]
    assert manifest.find(FileHandle("a/Weights.onnx")) is None


@pytest.mark.parametrize("version", [None, 1, 3, 5])
def test_any_version_serves_as_far_as_it_names_its_files(version):
    manifest = _parse({"file_handle": "weights.onnx", "md5_hash": MD5}, offline_manifest_version=version)
    assert [(file.handle, file.storage) for file in manifest.artifacts] == [
        ("weights.onnx", Storage.SHARED_BLOB)
    ]


def test_a_file_of_which_only_the_name_is_given_is_the_packages_own():
    (artifact,) = _parse({"file_handle": "labels.txt"}).artifacts
    assert (artifact.unhashed, artifact.storage) == (True, Storage.PACKAGE_FILE)


def test_a_manifest_that_names_no_files_has_none():
    assert parse_manifest(b"{}").artifacts == ()
    assert parse_manifest(b'{"package_artifacts": null}').artifacts == ()


def test_a_local_file_with_a_digest_stays_a_package_file():
    (artifact,) = _parse(_hashed("model.engine", storage="package_file")).artifacts
    assert (artifact.md5, artifact.storage) == (MD5, Storage.PACKAGE_FILE)


@pytest.mark.parametrize(
    ("fields", "is_of"),
    [
        ({}, True),
        ({"canonical_model_id": "a/1"}, True),
        ({"canonical_model_id": "a/1", "model_id": "a/1"}, True),
        ({"canonical_model_id": "A/1"}, False),
        ({"canonical_model_id": "b/1"}, False),
        ({"model_id": "b/1"}, False),
        ({"canonical_model_id": "a/1", "model_id": "b/1"}, False),
    ],
)
def test_a_manifest_belongs_to_a_model_that_nothing_in_it_contradicts(fields, is_of):
    assert _parse(**fields).is_of(ModelId("a/1")) is is_of


@pytest.mark.parametrize(
    "handle",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "",
        "a\\b",
        "a b",
        "a\0b",
        "wäights",
        "weights.",
        "model_config.json",
        "MODEL_CONFIG.json",
        "model_dependencies/backbone",
        "dependencies/x",
        ".weights.onnx.lock",
        ".weights.onnx.LOCK",
        ".lock",
        "a/.b.lock",
        "nul",
        "a/COM1.txt",
        "a" * 256,
    ],
)
def test_a_name_that_the_engine_refuses_makes_the_package_unservable(handle):
    _finding(json.dumps({"package_artifacts": [_hashed("weights.onnx"), _hashed(handle)]}).encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("weights.onnx", "weights.onnx"),
        ("weights.onnx", "Weights.onnx"),
        ("a/b", "A/c"),
        ("a", "a/b"),
        ("A", "a/b"),
        ("a/b", "a/b/c"),
        ("a/b/c", "a/b/C"),
    ],
)
def test_two_names_that_some_file_system_would_confuse_make_the_package_unservable(one, other):
    for handles in ((one, other), (other, one)):
        _finding(json.dumps({"package_artifacts": [_hashed(handle) for handle in handles]}).encode())


def test_names_that_only_look_alike_are_all_served():
    assert len(_parse(*map(_hashed, ["a/b", "a/c", "ab", "a-b", "b/a", "b/b/c"])).artifacts) == 6


@pytest.mark.parametrize(
    "artifact",
    [
        _hashed("a", md5_hash=MD5.upper()),
        _hashed("a", md5_hash=MD5[:-1]),
        _hashed("a", md5_hash=""),
        _hashed("a", md5_hash=f"../{MD5}"),
        _hashed("a", unhashed=True),
        _hashed("a", unhashed="false"),
        _hashed("a", storage="elsewhere"),
        _unhashed("a", unhashed=False),
        _unhashed("a", storage="shared_blob"),
        {"md5_hash": MD5},
        {"file_handle": None},
        {"file_handle": ["a"]},
        "a",
        None,
    ],
)
def test_a_file_that_contradicts_itself_makes_the_package_unservable(artifact):
    _finding(json.dumps({"package_artifacts": [artifact]}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"{",
        b"[]",
        b"null",
        b"4",
        b"{}{}",
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b'{"package_artifacts": {}}',
        b'{"package_artifacts": [{"file_handle": "\xc0\xaf"}]}',
        b'{"offline_manifest_version": "4"}',
        b'{"offline_manifest_version": true}',
        b'{"canonical_model_id": 1}',
        b'{"canonical_model_id": ""}',
        b'{"canonical_model_id": "../x"}',
        b'{"canonical_model_id": "a\\u0000"}',
        b'{"canonical_model_id": "\\ud800"}',
        b'{"model_id": "a//b"}',
    ],
)
def test_bytes_that_are_no_manifest_make_the_package_unservable(raw):
    _finding(raw)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_a_deeply_nested_manifest_is_refused_and_harmless(opening):
    _finding(b'{"model_features": ' + opening * 200_000)


def test_a_manifest_over_the_limit_is_refused_unread():
    assert "larger" in _finding(b" " * MAX_MANIFEST_BYTES + b"{}")


TOO_MANY = {
    "objects": b'{"a": [' + b",".join([b"{}"] * MAX_OBJECTS) + b"]}",
    "lists": b'{"a": [' + b",".join([b"[]"] * MAX_LISTS) + b"]}",
    "members": b'{"a": [' + b",".join([b"1"] * (MAX_MEMBERS + 2)) + b"]}",
}


@pytest.mark.parametrize("counted", TOO_MANY)
def test_one_that_the_decoder_would_be_at_for_long_is_refused_before_it_is_decoded(counted, monkeypatch):
    class Decoder:
        def decode(self, raw):
            raise AssertionError("it was decoded")

    monkeypatch.setattr(manifest_module, "_DECODER", Decoder())
    assert counted in _finding(TOO_MANY[counted])


@pytest.mark.parametrize("counted", TOO_MANY)
def test_one_that_is_just_within_these_bounds_is_decoded(counted):
    item = {"objects": b",{}", "lists": b",[]", "members": b",1"}[counted]
    raw = TOO_MANY[counted].replace(item, b"", 1)
    assert parse_manifest(raw).artifacts == ()


def test_a_manifest_lists_so_many_files_and_no_more():
    files = [{"file_handle": f"f{number}"} for number in range(MAX_FILES + 1)]
    raw = json.dumps({"package_artifacts": files[:-1]}).encode()
    assert len(parse_manifest(raw).artifacts) == MAX_FILES
    assert "files" in _finding(json.dumps({"package_artifacts": files}).encode())


def test_one_with_as_many_files_as_the_engine_could_write_into_it_is_within_the_bounds():
    """Twenty thousand fit, in the engine's own form."""
    files = [_hashed(f"folder{number % 10}/file-{number:06}.bin") for number in range(20_000)]
    raw = json.dumps({"package_artifacts": files, "canonical_model_id": "a/1"}).encode()
    assert len(raw) < MAX_MANIFEST_BYTES
    assert len(parse_manifest(raw).artifacts) == 20_000


def test_there_is_a_pause_after_each_slice_of_the_work():
    pauses = []
    files = [_hashed(f"f{number:06}", md5_hash=f"{number:032x}") for number in range(10 * SLICE_FILES)]
    parse_manifest(json.dumps({"package_artifacts": files}).encode(), lambda: pauses.append(None))
    assert len(pauses) >= 3 * 10  # its files, their order, and the tables


def test_a_finding_never_quotes_a_hostile_file_at_length():
    finding = _finding(json.dumps({"canonical_model_id": "\n" * 100_000}).encode())
    assert len(finding) <= MAX_FINDING_CHARACTERS
    assert "\n" not in finding


def test_the_last_of_two_equal_keys_counts_as_it_does_for_the_engine():
    assert parse_manifest(b'{"model_id": "a/1", "model_id": "b/1"}').cache_model_id == "b/1"
