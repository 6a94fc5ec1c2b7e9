"""A package, described as the provider would."""

from __future__ import annotations

import msgspec
import pytest

from gateway.engine.packages import KnownPackage, find_description
from gateway.model.names import FileHandle, Md5, PackageId

MD5 = Md5("b1946ac92492d2347c6235b4d2611184")


def _known(**changes):
    fields = {
        "package": PackageId("pkgA1"),
        "backend": "onnx",
        "quantization": "fp32",
        "is_batch_dynamic": True,
        "static_batch_size": None,
        "is_trusted": True,
        "features": None,
        "parameters": None,
        "files": {FileHandle("weights.onnx"): MD5, FileHandle("class_names.txt"): None},
    }
    return KnownPackage(**{**fields, **changes})


def _manifest(**changes):
    return find_description(_known(**changes))["packageManifest"]


def test_a_package_has_the_fields_that_the_engine_demands():
    assert find_description(_known()) == {
        "type": "external-model-package-v1",
        "packageId": "pkgA1",
        "packageManifest": {
            "type": "onnx-model-package-v1",
            "backendType": "onnx",
            "quantization": "fp32",
            "dynamicBatchSize": True,
            "opset": 1,
        },
        "modelFeatures": None,
        "trustedSource": True,
        "recommendedParameters": None,
        "packageFiles": [
            {"fileHandle": "class_names.txt", "downloadUrl": "", "md5Hash": None},
            {"fileHandle": "weights.onnx", "downloadUrl": "", "md5Hash": MD5},
        ],
    }


def test_parameters_get_the_protocol_s_names_and_keep_their_bytes():
    parameters = {
        "confidence": msgspec.Raw(b"0.40"),
        "per_class_confidence": msgspec.Raw(b'{"car":0.50}'),
        "other": msgspec.Raw(b"1"),
    }
    shown = find_description(_known(parameters=parameters))["recommendedParameters"]
    assert msgspec.json.encode(shown) == b'{"confidence":0.40,"perClassConfidence":{"car":0.50}}'


def test_a_torch_script_package_is_for_every_device_and_every_torch():
    assert _manifest(backend="torch-script", is_batch_dynamic=False, static_batch_size=4) == {
        "type": "torch-script-model-package-v1",
        "backendType": "torch-script",
        "quantization": "fp32",
        "dynamicBatchSize": False,
        "staticBatchSize": 4,
        "supportedDeviceTypes": ["cpu", "cuda", "mps"],
        "torchVersion": "1.0.0",
    }


def test_a_torch_package_lacks_nothing():
    assert _manifest(backend="torch") == {
        "type": "torch-model-package-v1",
        "backendType": "torch",
        "quantization": "fp32",
        "dynamicBatchSize": True,
    }


def test_a_hugging_face_package_has_no_batch_size():
    assert _manifest(backend="hugging-face", is_batch_dynamic=None, quantization="bf16") == {
        "type": "hf-model-package-v1",
        "backendType": "hf",
        "quantization": "bf16",
    }


def test_details_take_the_place_of_what_stands_in():
    assert _manifest(details={"opset": 17, "incompatibleProviders": ["x"]})["opset"] == 17


def test_a_tensorrt_package_is_offered_with_details_only():
    assert find_description(_known(backend="trt")) is None
    assert _manifest(backend="trt", details={"trtVersion": "10.3"})["trtVersion"] == "10.3"


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "coreml"},
        {"backend": "ultralytics"},
        {"backend": "custom"},
        {"backend": "hf"},
        {"backend": ""},
        {"quantization": "fp8"},
        {"is_batch_dynamic": None},
        {"is_batch_dynamic": True, "static_batch_size": 1},
        {"is_batch_dynamic": False, "static_batch_size": None},
        {"is_batch_dynamic": False, "static_batch_size": 0},
    ],
)
def test_what_the_engine_would_refuse_is_not_described(changes):
    assert find_description(_known(**changes)) is None
