"""A record of the engine's offline registry."""

from __future__ import annotations

import json

import pytest

from gateway.engine.registry import MAX_RECORD_BYTES, parse_record
from gateway.model.errors import Reason, Refusal
from gateway.model.names import ModelId

MODEL = ModelId("acme/cars/1")
MD5 = "b1946ac92492d2347c6235b4d2611184"
SERVER = {
    "kind": "gpu-server",
    "cuda_device_cc": "8.6",
    "cuda_device_name": "nvidia-a10",
    "driver_version": "550.54",
    "cuda_version": "12.4",
    "trt_version": "10.3.0",
    "os_version": "Ubuntu 22.04",
}
JETSON = {
    **SERVER,
    "kind": "jetson",
    "os_version": None,
    "l4t_version": "36.4",
    "jetson_product_name": "Orin NX",
}


def _package(package="pkgA1", **changes):
    return {
        "package_id": package,
        "backend": "onnx",
        "quantization": "fp32",
        "dynamic_batch_size_supported": True,
        "static_batch_size": None,
        "trusted_source": True,
        "model_features": None,
        "recommended_parameters": None,
        "cache_model_id": None,
        "environment_requirements": None,
        "trt_package_details": None,
        "onnx_package_details": {"opset": 17, "incompatible_providers": None},
        "torch_script_package_details": None,
        "artifacts": [{"file_handle": "weights.onnx", "md5_hash": MD5}],
        **changes,
    }


def _record(*packages, **changes):
    fields = {
        "format_version": 1,
        "canonical_model_id": MODEL,
        "requested_aliases": ["a-cars"],
        "recorded_at": "2026-11-20T11:10:12+00:00",
        "source": "warmup",
        "model": {"model_architecture": "resnet", "task_type": "classification", "model_variant": "18"},
        "packages": list(packages),
        "proven": {"pkgA1": {"last_proven_at": "2026-11-20T11:10:12+00:00"}},
    }
    return json.dumps({**fields, **changes}).encode()


def _details(**changes):
    return parse_record(_record(_package(**changes)), MODEL).packages["pkgA1"].details


def test_a_record_knows_the_details_of_packages():
    record = parse_record(_record(_package()), MODEL)
    assert record.variant == "18"
    package = record.packages["pkgA1"]
    assert (package.backend, package.files) == ("onnx", {"weights.onnx": MD5})
    assert package.details == {"opset": 17, "incompatibleProviders": None}


def test_torch_script():
    script = {"supported_device_types": ["cpu"], "torch_version": "2.3", "torch_vision_version": None}
    assert _details(backend="torch-script", torch_script_package_details=script) == {
        "supportedDeviceTypes": ["cpu"],
        "torchVersion": "2.3",
        "torchVisionVersion": None,
    }


def test_tensorrt_on_a_server():
    built = {"min_dynamic_batch_size": 1, "opt_dynamic_batch_size": 2, "max_dynamic_batch_size": 8}
    assert _details(backend="trt", environment_requirements=SERVER, trt_package_details=built) == {
        "minBatchSize": 1,
        "optBatchSize": 2,
        "maxBatchSize": 8,
        "cudaDeviceType": "nvidia-a10",
        "cudaDeviceCC": "8.6",
        "cudaVersion": "12.4",
        "trtVersion": "10.3.0",
        "sameCCCompatible": False,
        "trtForwardCompatible": False,
        "trtLeanRuntimeExcluded": False,
        "machineType": "gpu-server",
        "machineSpecs": {
            "type": "gpu-server-specs-v1",
            "driverVersion": "550.54",
            "osVersion": "Ubuntu 22.04",
        },
    }


def test_tensorrt_on_a_jetson():
    details = _details(backend="trt", environment_requirements=JETSON)
    assert details["machineType"] == "jetson"
    assert details["machineSpecs"] == {
        "type": "jetson-machine-specs-v1",
        "l4tVersion": "36.4",
        "deviceName": "Orin NX",
        "driverVersion": "550.54",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"onnx_package_details": None},
        {"backend": "torch"},
        {"backend": "trt"},
        {"backend": "trt", "environment_requirements": {**SERVER, "os_version": None}},
        {"backend": "trt", "environment_requirements": {**JETSON, "l4t_version": None}},
        {"backend": "trt", "environment_requirements": {**SERVER, "kind": "laptop"}},
    ],
)
def test_details_that_are_not_all_there_are_not_known(changes):
    assert _details(**changes) is None


@pytest.mark.parametrize(
    "bad",
    [
        None,
        "x",
        {},
        _package("a-b"),
        _package("bad", artifacts=[{"file_handle": "w", "md5_hash": None}]),
        _package("bad", artifacts=[{"file_handle": "../w", "md5_hash": MD5}]),
        _package("bad", onnx_package_details={"opset": "17"}),
        _package("bad", cache_model_id="globex/cars/1"),
    ],
)
def test_a_package_that_does_not_parse_is_left_out_alone(bad):
    assert list(parse_record(_record(bad, _package()), MODEL).packages) == ["pkgA1"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * (MAX_RECORD_BYTES + 1),
        _record(format_version=2),
        _record(format_version="1"),
        _record(canonical_model_id="globex/cars/1"),
        _record(canonical_model_id="../x"),
        _record(model=None),
        _record(packages=None),
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_what_is_no_record_of_the_model_is_refused(raw):
    with pytest.raises(Refusal) as refusal:
        parse_record(raw, MODEL)
    assert refusal.value.reason is Reason.UNSERVABLE
