"""The models behind the inference server: two tenants' own, the platform's, and core models.

Ids have one slash at most: the server takes no others. Both tenants have models of the same names (`1`, `2`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from catalogue import CLASSIFIER, DETECTOR, ONNX, TORCH_SCRIPT
from provider import File, Model, Package

if TYPE_CHECKING:
    from pathlib import Path

CARS, BOXES, CHILD = "acme/1", "acme/2", "acme/3"
GLOBEX_VANS, GLOBEX_BOXES = "globex/1", "globex/2"
GLOBEX_CHILD = "globex/3"
"""Depends on a model of acme's."""
SHARED = "classifiers/1"
"""Of the platform; `resnet18` is the server's own alias of it."""
STATIC_ALIAS = "resnet18"
ALIAS, ALIASES = "a-cars", {"a-cars": CARS}
CLIP, SAM2 = "clip/ViT-B-16", "sam2/hiera_tiny"
ABSENT = "acme/99"

_TORCH = {
    "type": "torch-model-package-v1",
    "backendType": "torch",
    "quantization": "fp32",
    "dynamicBatchSize": True,
}


def tenants_models(files: Path, core_files: Path) -> list[Model]:
    """All of them, of the files that `models.py` and `core_models.py` built."""

    def package(package_id: str, folder: Path, handles: tuple[str, ...], manifest: dict) -> Package:
        return Package(
            package_id=package_id,
            manifest=manifest,
            files=tuple(File(handle=handle, path=folder / handle) for handle in handles),
        )

    def classifier(name: str, package_id: str = "pkgA1") -> Package:
        return package(package_id, files / name, CLASSIFIER, ONNX)

    boxes = package("pkgB1", files / "boxes", DETECTOR, TORCH_SCRIPT)
    clip = package("pkgC1", core_files / "clip", ("visual.onnx", "textual.onnx"), ONNX)
    sam2 = package("pkgS1", core_files / "sam2", ("model.pt", "sam_configuration.json"), _TORCH)
    detector = {"architecture": "yolov8", "task": "object-detection"}
    return [
        Model(model_id=CARS, packages=(classifier("cars"),)),
        Model(model_id=BOXES, packages=(boxes,), **detector),
        Model(model_id=CHILD, packages=(classifier("parent", "pkgP1"),), dependencies={"backbone": CARS}),
        Model(model_id=GLOBEX_VANS, packages=(classifier("vans"),)),
        Model(
            model_id=GLOBEX_CHILD, packages=(classifier("parent", "pkgP1"),), dependencies={"backbone": CARS}
        ),
        Model(model_id=GLOBEX_BOXES, packages=(boxes,), **detector),
        Model(model_id=SHARED, packages=(classifier("many1"),)),
        Model(model_id=CLIP, packages=(clip,), architecture="clip", task="embedding"),
        Model(
            model_id=SAM2,
            packages=(sam2,),
            architecture="sam2",
            task="interactive-instance-segmentation",
        ),
    ]
