"""Describe a package as the provider would, from what this cache knows of it.

Two of the engine's files describe a package. The manifest (`model_config.json`) has what the engine compares
between loads: architecture, task, backend, quantization, batch size, trust, features, parameters,
dependencies, files. It lacks what the engine uses only to choose among packages. A registry record has that
as well, in `details`.

What a manifest lacks, by backend, and which default replaces it. Each default is the value that keeps the
engine from discarding the package on any machine, and that ranks it last among its equals:

* `onnx`: the opset is given as 1 (the engine discards what is above the runtime's, and prefers higher);
  incompatible providers as none. An engine whose first provider cannot run it finds out on loading, and takes
  the next package.
* `torch-script`: all device types; torch 1.0.0, the first that had TorchScript; no torchvision. The engine
  behaves in the same way.
* `torch` and `hugging-face`: nothing is lacking.
* `trt`: device, compute capability, driver and versions decide whether an engine file runs at all. No default
  can replace them, so without a record a TensorRT package is not listed.
* the rest (`coreml`, which the provider lists on demand only, `ultralytics`, `custom`, `vllm`): not listed.

Measured memory, latency and the model's variant are lost; no engine decides by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.engine.answers import PACKAGE_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model.names import FileHandle, Md5, PackageId

_QUANTIZATIONS = frozenset({"fp32", "fp16", "bf16", "int8", "unknown"})
_PARAMETERS = {"confidence": "confidence", "per_class_confidence": "perClassConfidence"}

Details: TypeAlias = dict[str, Any]
"""Fields of a package manifest by their names in the protocol."""


class KnownPackage(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one package: its manifest's contents, and `details` if there is a record."""

    package: PackageId
    backend: str
    quantization: str
    is_batch_dynamic: bool | None
    static_batch_size: int | None
    is_trusted: bool
    features: dict[str, msgspec.Raw] | None
    parameters: dict[str, msgspec.Raw] | None
    files: Mapping[FileHandle, Md5 | None]
    details: Details | None = None


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """How the protocol describes packages of a backend.

    `stand_in` are the defaults; None if there are none.
    """

    manifest_type: str
    backend_type: str
    has_batch_size: bool
    stand_in: Details | None


_FORMS = {
    "onnx": _Form(
        manifest_type="onnx-model-package-v1",
        backend_type="onnx",
        has_batch_size=True,
        stand_in={"opset": 1},
    ),
    "torch-script": _Form(
        manifest_type="torch-script-model-package-v1",
        backend_type="torch-script",
        has_batch_size=True,
        stand_in={"supportedDeviceTypes": ["cpu", "cuda", "mps"], "torchVersion": "1.0.0"},
    ),
    "torch": _Form(
        manifest_type="torch-model-package-v1", backend_type="torch", has_batch_size=True, stand_in={}
    ),
    "hugging-face": _Form(
        manifest_type="hf-model-package-v1", backend_type="hf", has_batch_size=False, stand_in={}
    ),
    "trt": _Form(
        manifest_type="trt-model-package-v1", backend_type="trt", has_batch_size=True, stand_in=None
    ),
}


def find_description(known: KnownPackage) -> dict[str, Any] | None:
    """The package as an item of `modelPackages`, without links; None when it cannot be described."""
    manifest = _find_manifest(known)
    if manifest is None:
        return None
    return {
        "type": PACKAGE_TYPE,
        "packageId": known.package,
        "packageManifest": manifest,
        "modelFeatures": known.features,
        "trustedSource": known.is_trusted,
        "recommendedParameters": _parameters(known.parameters),
        "packageFiles": [
            {"fileHandle": handle, "downloadUrl": "", "md5Hash": md5}
            for handle, md5 in sorted(known.files.items())
        ],
    }


def _find_manifest(known: KnownPackage) -> Details | None:
    form = _FORMS.get(known.backend)
    if form is None or known.quantization not in _QUANTIZATIONS:
        return None
    details = form.stand_in if known.details is None else known.details
    batch_size = _find_batch_size(known) if form.has_batch_size else {}
    if details is None or batch_size is None:
        return None
    return {
        "type": form.manifest_type,
        "backendType": form.backend_type,
        "quantization": known.quantization,
        **batch_size,
        **details,
    }


def _find_batch_size(known: KnownPackage) -> Details | None:
    """Either dynamic, or static with a size: the engine refuses any other combination."""
    if known.is_batch_dynamic:
        return {"dynamicBatchSize": True} if known.static_batch_size is None else None
    if known.is_batch_dynamic is None or known.static_batch_size is None or known.static_batch_size <= 0:
        return None
    return {"dynamicBatchSize": False, "staticBatchSize": known.static_batch_size}


def _parameters(parameters: dict[str, msgspec.Raw] | None) -> Details | None:
    if parameters is None:
        return None
    return {_PARAMETERS[name]: value for name, value in parameters.items() if name in _PARAMETERS}
