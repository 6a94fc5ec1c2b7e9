"""An answer that is made from the cache."""

from __future__ import annotations

import json

import pytest

from gateway.engine.answers import rewritten
from gateway.engine.local_answers import PackageOnDisk, find_local_answer
from gateway.engine.registry import parse_record
from gateway.model.names import FileHandle, ModelId, PackageId

MODEL = ModelId("acme/parent/1")
MD5 = "b1946ac92492d2347c6235b4d2611184"
OTHER_MD5 = "a" * 32


def _hashed(handle="weights.onnx", md5=MD5):
    return {"file_handle": handle, "md5_hash": md5, "unhashed": False, "storage": "shared_blob"}


def _unhashed(handle="class_names.txt"):
    return {"file_handle": handle, "md5_hash": None, "unhashed": True, "storage": "package_file"}


def _on_disk(package="pkgA1", servable=None, **changes):
    manifest = {
        "offline_manifest_version": 4,
        "model_architecture": "resnet",
        "task_type": "classification",
        "backend_type": "onnx",
        "model_features": {"nms_fused": False},
        "trusted_source": True,
        "model_dependencies": [{"name": "backbone", "model_id": "acme/cars/1", "model_package_id": None}],
        "recommended_parameters": {"confidence": 0.4, "per_class_confidence": {"car": 0.5}},
        "quantization": "fp32",
        "dynamic_batch_size_supported": True,
        "static_batch_size": None,
        "canonical_model_id": MODEL,
        "model_id": MODEL,
        "package_artifacts": [_unhashed(), _hashed()],
        "dependency_package_paths": [],
        **changes,
    }
    manifest = {name: value for name, value in manifest.items() if value is not ...}
    files = (
        [one["file_handle"] for one in manifest.get("package_artifacts") or []]
        if servable is None
        else servable
    )
    return PackageOnDisk(
        package=PackageId(package),
        raw_manifest=json.dumps(manifest).encode(),
        servable=frozenset(map(FileHandle, files)),
    )


def _record(artifacts, **changes):
    package = {
        "package_id": "pkgA1",
        "backend": "onnx",
        "artifacts": artifacts,
        "onnx_package_details": {"opset": 17, "incompatible_providers": ["x"]},
        **changes,
    }
    fields = {
        "format_version": 1,
        "canonical_model_id": MODEL,
        "model": {"model_variant": "18"},
        "packages": [package],
    }
    return parse_record(json.dumps(fields).encode(), MODEL)


def _link(package, file):
    return f"/d/{package}/{file.handle}"


def _shown(*on_disk, record=None):
    answer = find_local_answer(MODEL, on_disk, record)
    return json.loads(rewritten(answer, _link))["modelMetadata"]


def test_a_manifest_gives_the_answer_that_the_engine_had_it_from():
    assert _shown(_on_disk()) == {
        "type": "external-model-metadata-v1",
        "modelId": MODEL,
        "modelVariant": None,
        "modelArchitecture": "resnet",
        "taskType": "classification",
        "modelDependencies": [
            {
                "type": "model-dependency-v1",
                "name": "backbone",
                "modelId": "acme/cars/1",
                "modelPackageId": None,
            }
        ],
        "modelPackages": [
            {
                "type": "external-model-package-v1",
                "packageId": "pkgA1",
                "packageManifest": {
                    "type": "onnx-model-package-v1",
                    "backendType": "onnx",
                    "quantization": "fp32",
                    "dynamicBatchSize": True,
                    "opset": 1,
                },
                "modelFeatures": {"nms_fused": False},
                "trustedSource": True,
                "recommendedParameters": {"confidence": 0.4, "perClassConfidence": {"car": 0.5}},
                "packageFiles": [
                    {
                        "fileHandle": "class_names.txt",
                        "downloadUrl": "/d/pkgA1/class_names.txt",
                        "md5Hash": None,
                    },
                    {"fileHandle": "weights.onnx", "downloadUrl": "/d/pkgA1/weights.onnx", "md5Hash": MD5},
                ],
            }
        ],
    }


def test_files_have_no_url_of_anybody_until_they_are_linked():
    answer = find_local_answer(MODEL, [_on_disk()])
    assert {file.download_url for one in answer.packages for file in one.files} == {None}


def test_the_same_cache_gives_the_same_bytes_in_whatever_order_it_is_read():
    one, other = _on_disk("pkgA1"), _on_disk("pkgB2")
    bodies = {
        rewritten(find_local_answer(MODEL, found), _link)
        for found in ([one, other], [other, one], (one, other))
    }
    assert len(bodies) == 1


def test_a_record_adds_details_to_the_package_that_it_is_about():
    record = _record([{"file_handle": "weights.onnx", "md5_hash": MD5}])
    shown = _shown(_on_disk(package_artifacts=[_hashed()]), record=record)
    assert shown["modelVariant"] == "18"
    manifest = shown["modelPackages"][0]["packageManifest"]
    assert (manifest["opset"], manifest["incompatibleProviders"]) == (17, ["x"])


@pytest.mark.parametrize(
    "record",
    [
        _record([{"file_handle": "weights.onnx", "md5_hash": OTHER_MD5}]),
        _record([]),
        _record([{"file_handle": "weights.onnx", "md5_hash": MD5}], backend="torch"),
        _record([{"file_handle": "weights.onnx", "md5_hash": MD5}], package_id="pkgB2"),
        _record([{"file_handle": "weights.onnx", "md5_hash": MD5}], onnx_package_details=None),
    ],
)
def test_a_record_about_other_files_adds_nothing(record):
    shown = _shown(_on_disk(package_artifacts=[_hashed()]), record=record)
    assert shown["modelPackages"][0]["packageManifest"]["opset"] == 1


def test_a_tensorrt_package_needs_a_record():
    on_disk = _on_disk(backend_type="trt", package_artifacts=[_hashed()])
    assert find_local_answer(MODEL, [on_disk]) is None
    machine = dict.fromkeys(
        (
            "cuda_device_cc",
            "cuda_device_name",
            "driver_version",
            "cuda_version",
            "trt_version",
            "os_version",
        ),
        "8.6",
    )
    record = _record(
        [{"file_handle": "weights.onnx", "md5_hash": MD5}],
        backend="trt",
        environment_requirements={"kind": "gpu-server", **machine},
    )
    assert _shown(on_disk, record=record)["modelPackages"][0]["packageManifest"]["trtVersion"] == "8.6"


@pytest.mark.parametrize("dependencies", [..., None, []])
def test_no_dependencies_are_said_in_one_way(dependencies):
    assert _shown(_on_disk(model_dependencies=dependencies))["modelDependencies"] is None


LEFT_OUT = [
    {"offline_manifest_version": 3},
    {"offline_manifest_version": 5},
    {"offline_manifest_version": ...},
    {"canonical_model_id": "globex/cars/1"},
    {"model_id": "globex/cars/1"},
    {"model_architecture": None},
    {"model_architecture": "vit"},
    {"task_type": "object-detection"},
    {"model_dependencies": []},
    {"model_dependencies": [{"name": "backbone", "model_id": "../x"}]},
    {"backend_type": "ultralytics"},
    {"backend_type": None},
    {"quantization": None},
    {"dynamic_batch_size_supported": None},
    {"package_artifacts": []},
    {"package_artifacts": ...},
    {"package_artifacts": [_hashed("../x")]},
    {"package_artifacts": [_hashed(md5=MD5.upper())]},
    {"package_artifacts": [_hashed("a"), _hashed("A")]},
    {"servable": ["weights.onnx"]},
    {"servable": []},
    {"servable": ["weights.onnx", "class_names.txt", "more.txt"]},
]


@pytest.mark.parametrize("changes", LEFT_OUT, ids=repr)
def test_a_package_that_would_not_be_what_it_was_is_left_out(changes):
    answer = find_local_answer(MODEL, [_on_disk("pkgA1"), _on_disk("pkgB2", **changes)])
    assert [one.package for one in answer.packages] == ["pkgA1"]


@pytest.mark.parametrize("raw", [b"", b"null", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_leaves_its_package_out(raw):
    broken = PackageOnDisk(package=PackageId("pkgB2"), raw_manifest=raw, servable=frozenset())
    assert [one.package for one in find_local_answer(MODEL, [_on_disk(), broken]).packages] == ["pkgA1"]


def test_nothing_on_disk_is_no_answer():
    assert find_local_answer(MODEL, []) is None
    assert find_local_answer(MODEL, [_on_disk(backend_type="coreml")]) is None
    assert find_local_answer(MODEL, [_on_disk(package_artifacts=[_hashed("a"), _hashed("A")])]) is None
