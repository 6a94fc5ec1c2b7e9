"""The models of the tests, their owners, and which of the built files they consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from provider import File, Model, Package

if TYPE_CHECKING:
    from pathlib import Path

CARS, PARENT, MANY, VANS = "acme/cars/1", "acme/parent/1", "acme/many/1", "acme/vans/1"
BOXES, MID, LARGE = "acme/boxes/1", "acme/mid/1", "acme/large/1"
LOOSE, HEAVY = "acme/loose/1", "acme/heavy/1"
FRESH = "acme/fresh/1"
GLOBEX_CARS, THIEF, FORGED = "globex/cars/1", "globex/thief/1", "globex/forged/1"
ABSENT = "acme/absent/1"

ALIAS, ALIASES = "a-cars", {"a-cars": CARS}
PACKAGE = "pkgA1"
FIRST_OF_MANY, SECOND_OF_MANY = "pkgM1", "pkgM2"

UNHASHED = (LOOSE, HEAVY)
"""What only a client loads that takes files without a digest; of HEAVY the weights, of LOOSE the names."""
KEPT_OUT = (FRESH, THIEF, FORGED)
"""What the operator never loaded. Of FORGED, somebody else puts a package into the cache."""

ONNX = {
    "type": "onnx-model-package-v1",
    "backendType": "onnx",
    "quantization": "fp32",
    "opset": 17,
    "dynamicBatchSize": True,
}
TORCH_SCRIPT = {
    "type": "torch-script-model-package-v1",
    "backendType": "torch-script",
    "quantization": "fp32",
    "supportedDeviceTypes": ["cpu"],
    "torchVersion": "2.0.0",
    "staticBatchSize": 1,
}
CLASSIFIER = ("weights.onnx", "class_names.txt", "inference_config.json")
DETECTOR = ("weights.torchscript", "class_names.txt", "inference_config.json")


def catalogue(files: Path) -> list[Model]:
    """All models, of the files that `models.py` built below `files`."""

    def package(name: str, package_id: str = PACKAGE, unhashed: tuple[str, ...] = ()) -> Package:
        return Package(
            package_id=package_id,
            manifest=ONNX,
            files=tuple(
                File(handle=handle, path=files / name / handle, is_hashed=handle not in unhashed)
                for handle in CLASSIFIER
            ),
        )

    boxes = Package(
        package_id="pkgB1",
        manifest=TORCH_SCRIPT,
        files=tuple(File(handle=handle, path=files / "boxes" / handle) for handle in DETECTOR),
    )
    cars = package("cars")
    return [
        Model(model_id=CARS, packages=(cars,)),
        Model(model_id=PARENT, packages=(package("parent", "pkgP1"),), dependencies={"backbone": CARS}),
        Model(
            model_id=MANY,
            packages=(package("many1", FIRST_OF_MANY), package("many2", SECOND_OF_MANY)),
        ),
        Model(model_id=VANS, packages=(package("vans"),)),
        Model(model_id=BOXES, packages=(boxes,), architecture="yolov8", task="object-detection"),
        Model(model_id=MID, packages=(package("mid"),)),
        Model(model_id=LARGE, packages=(package("large"),)),
        Model(model_id=LOOSE, packages=(package("loose", unhashed=("class_names.txt",)),)),
        Model(model_id=HEAVY, packages=(package("mid", unhashed=("weights.onnx",)),)),
        Model(model_id=FRESH, packages=(package("vans", "pkgF1"),)),
        Model(model_id=GLOBEX_CARS, packages=(_with_other_names(cars, files),)),
        Model(model_id=FORGED, packages=(package("vans"),)),
        Model(model_id=THIEF, packages=(_naming_only(cars),)),
    ]


def _with_other_names(package: Package, files: Path) -> Package:
    """The same weights, of another tenant: the same package id, too, since those are not unique."""
    names = File(handle="class_names.txt", path=files / "vans" / "class_names.txt")
    kept = tuple(file for file in package.files if file.handle != names.handle)
    return Package(package_id=package.package_id, manifest=package.manifest, files=(*kept, names))


def _naming_only(package: Package) -> Package:
    """A package that names the digests of another's files, and has none of them."""
    files = tuple(File(handle=file.handle, path=None, named_md5=file.md5) for file in package.files)
    return Package(package_id="pkgT1", manifest=package.manifest, files=files)
