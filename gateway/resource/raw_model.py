"""A model's own files as bytes, for whoever describes it: its manifests and its registry record.

The engine leaves a manifest in each package, and, where it was told to prepare for offline use, a record
of the whole model in a folder beside the caches, under the name of the model's directory. Both are opened
as everything below the root is: by their own names, never through a link. What they mean is not looked
at here, and neither is ever served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.model.errors import Refusal
from gateway.resource.naming import model_directory
from gateway.resource.package import opened_package
from gateway.resource.safe_open import load_regular, opened_directory, opened_root
from gateway.resource.tree import opened_model, package_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.model.names import FileHandle, ModelId, PackageId
    from gateway.resource.package import Package

OFFLINE_REGISTRY = "offline-weights-registry"
MAX_RECORD_BYTES = 4 * 1024 * 1024  # as a manifest: whoever can write one must not hold up everybody else


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPackage:
    """A package whose manifest is in order: the manifest as it lies there, and which files are servable."""

    package: PackageId
    raw_manifest: bytes = field(repr=False)
    servable: frozenset[FileHandle]


def raw_packages(root: Path, link_roots: tuple[str, ...], model: ModelId) -> list[RawPackage]:
    """The packages of a model as the disk has them now, by their ids; what is not in order is left out."""
    try:
        with opened_model(root, model) as place:
            if place is None:
                return []
            clear, _ = package_names(place.directory)
            found: list[RawPackage] = []
            for package in clear:
                found += _raw_package(package, model, place.directory, place.root, link_roots)
            return found
    except Refusal:
        return []


def load_registry_record(root: Path, model: ModelId) -> bytes | None:
    """The bytes of the model's record; None when there is none.

    Raises `Refusal(UNSERVABLE)` for something else in its place, and for one that is too large.
    """
    with opened_root(root) as top, opened_directory(OFFLINE_REGISTRY, below=top) as folder:
        if folder is None:
            return None
        name = f"{model_directory(model)}.json"
        return load_regular(name, below=folder, max_bytes=MAX_RECORD_BYTES, what="the registry record")


def _raw_package(
    package: PackageId, model: ModelId, below: int, root: int, link_roots: tuple[str, ...]
) -> Iterator[RawPackage]:
    try:
        with opened_package(package, below=below, root=root, roots=link_roots) as found:
            if found is not None and found.manifest.is_of(model):
                servable = frozenset(_servable(found))
                yield RawPackage(package=package, raw_manifest=found.raw_manifest, servable=servable)
    except Refusal:
        return


def _servable(package: Package) -> Iterator[FileHandle]:
    for artifact in package.manifest.artifacts:
        try:
            if package.inspect(artifact) is not None:
                yield artifact.handle
        except Refusal:
            continue
