"""Parse a record of the engine's `offline-weights-registry`: a provider's answer in the engine's own form.

An engine that prepares for offline use stores the provider's answer about a model, each package with the
details that a manifest lacks. It keeps what it parsed, not the bytes: names are snake case, versions are
strings, links are removed. Packages with an unhashed file are never in it.

A record is not signed. Only those details are taken from it, for packages in the cache with exactly the same
files; it is refused when it is about another model, or newer than the known format. A package of it that does
not parse is left out alone, as the engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.engine.faults import unservable
from gateway.model.errors import BadNameError
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id, parse_package_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.engine.packages import Details
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MAX_RECORD_BYTES = 1024 * 1024  # about 100 bytes a file, all packages together
MAX_MEMBERS = 65_536
"""By its commas. The decoder reads the record in one call, and a million small items would take it 25 ms,
during which no other thread gets the interpreter lock.
"""
KNOWN_FORMAT = 1


class RecordedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package by its files, and the details that a manifest lacks; None when the record has none."""

    backend: str
    files: Mapping[FileHandle, Md5]
    details: Details | None


class RegistryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a record adds to one model: its variant, and details of its packages."""

    variant: str | None
    packages: Mapping[PackageId, RecordedPackage]


class _RawArtifact(msgspec.Struct):
    file_handle: str
    md5_hash: str


class _RawOnnx(msgspec.Struct):
    opset: int
    incompatible_providers: list[str] | None = None


class _RawTorchScript(msgspec.Struct):
    supported_device_types: list[str]
    torch_version: str
    torch_vision_version: str | None = None


class _RawTrt(msgspec.Struct):
    min_dynamic_batch_size: int | None = None
    opt_dynamic_batch_size: int | None = None
    max_dynamic_batch_size: int | None = None
    same_cc_compatible: bool = False
    trt_forward_compatible: bool = False
    trt_lean_runtime_excluded: bool = False


class _RawMachine(msgspec.Struct):
    kind: str
    cuda_device_cc: str
    cuda_device_name: str
    driver_version: str
    cuda_version: str
    trt_version: str
    os_version: str | None = None
    l4t_version: str | None = None
    jetson_product_name: str | None = None


class _RawPackage(msgspec.Struct):
    package_id: str
    backend: str
    artifacts: list[_RawArtifact]
    cache_model_id: str | None = None
    environment_requirements: _RawMachine | None = None
    trt_package_details: _RawTrt | None = None
    onnx_package_details: _RawOnnx | None = None
    torch_script_package_details: _RawTorchScript | None = None


class _RawModel(msgspec.Struct):
    model_variant: str | None = None


class _RawRecord(msgspec.Struct):
    format_version: int
    canonical_model_id: str
    model: _RawModel
    packages: list[msgspec.Raw]


_RECORDS = msgspec.json.Decoder(_RawRecord)
_PACKAGES = msgspec.json.Decoder(_RawPackage)


def parse_record(raw: bytes, model: ModelId) -> RegistryRecord:
    """Parse the record of this model. Raises `Refusal(UNSERVABLE)` for everything that is none."""
    if len(raw) > MAX_RECORD_BYTES:
        raise unservable("the registry record is larger than any that the engine writes")
    if raw.count(b",") > MAX_MEMBERS:
        raise unservable(f"the registry record has more than {MAX_MEMBERS} members")
    try:
        claimed = _RECORDS.decode(raw)
        if parse_model_id(claimed.canonical_model_id) != model or claimed.format_version > KNOWN_FORMAT:
            raise unservable("the registry record is about another model, or of a newer form")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unservable("the registry record is not JSON of the expected shape") from error
    except BadNameError as error:
        raise unservable("the registry record is about what is no model id") from error
    found = (_find_package(item, model) for item in claimed.packages)
    return RegistryRecord(
        variant=claimed.model.model_variant, packages=dict(pair for pair in found if pair is not None)
    )


def _find_package(item: msgspec.Raw, model: ModelId) -> tuple[PackageId, RecordedPackage] | None:
    try:
        claimed = _PACKAGES.decode(item)
        if claimed.cache_model_id not in {None, model}:  # it is in another model's directory
            return None
        files = {parse_file_handle(one.file_handle): parse_md5(one.md5_hash) for one in claimed.artifacts}
        details = _find_details(claimed)
        recorded = RecordedPackage(backend=claimed.backend, files=files, details=details)
        return parse_package_id(claimed.package_id), recorded
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadNameError):
        return None


def _find_details(claimed: _RawPackage) -> Details | None:
    """The details that a manifest lacks, under the protocol's names; None when the record lacks them too."""
    match claimed.backend:
        case "onnx" if claimed.onnx_package_details is not None:
            onnx = claimed.onnx_package_details
            return {"opset": onnx.opset, "incompatibleProviders": onnx.incompatible_providers}
        case "torch-script" if claimed.torch_script_package_details is not None:
            script = claimed.torch_script_package_details
            return {
                "supportedDeviceTypes": script.supported_device_types,
                "torchVersion": script.torch_version,
                "torchVisionVersion": script.torch_vision_version,
            }
        case "trt" if claimed.environment_requirements is not None:
            specs = _find_machine_specs(claimed.environment_requirements)
            built = claimed.trt_package_details or _RawTrt()
            return None if specs is None else _trt_details(claimed.environment_requirements, built) | specs
    return None


def _trt_details(machine: _RawMachine, built: _RawTrt) -> Details:
    return {
        "minBatchSize": built.min_dynamic_batch_size,
        "optBatchSize": built.opt_dynamic_batch_size,
        "maxBatchSize": built.max_dynamic_batch_size,
        "cudaDeviceType": machine.cuda_device_name,
        "cudaDeviceCC": machine.cuda_device_cc,
        "cudaVersion": machine.cuda_version,
        "trtVersion": machine.trt_version,
        "sameCCCompatible": built.same_cc_compatible,
        "trtForwardCompatible": built.trt_forward_compatible,
        "trtLeanRuntimeExcluded": built.trt_lean_runtime_excluded,
    }


def _find_machine_specs(machine: _RawMachine) -> Details | None:
    if machine.kind == "gpu-server" and machine.os_version is not None:
        return {
            "machineType": "gpu-server",
            "machineSpecs": {
                "type": "gpu-server-specs-v1",
                "driverVersion": machine.driver_version,
                "osVersion": machine.os_version,
            },
        }
    if (
        machine.kind == "jetson"
        and machine.l4t_version is not None
        and machine.jetson_product_name is not None
    ):
        return {
            "machineType": "jetson",
            "machineSpecs": {
                "type": "jetson-machine-specs-v1",
                "l4tVersion": machine.l4t_version,
                "deviceName": machine.jetson_product_name,
                "driverVersion": machine.driver_version,
            },
        }
    return None
