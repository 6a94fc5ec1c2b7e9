"""Make the answer to the engine's request from the cache, when no provider answers.

Each package is described by its manifest, which the engine wrote when it had loaded it. A registry record of
the model adds the details that a manifest lacks, for a package with the same files; `packages` says what
replaces them otherwise. The result is a `MetadataPage`, parsed by the same parser, without URLs:
`rewritten` inserts ours.

Where both state a value, the manifest's is used, because an engine that has the package already compares with
exactly that and refuses the package for good when a field differs. The same cache gives the same bytes every
time.

Left out: a package that is not servable as a whole, whose manifest is older than version 4 (it lacks fields
that would have to be guessed), that is about another model, or that cannot be described. The head of an
answer (architecture, task, dependencies) is common to all packages; those whose head differs from that of the
first, by id, are left out as well, since an engine would load them as something they are not.

A manifest is trusted as far as the engine trusts it, `trusted_source` included: anyone who can write to the
volume can make one up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.engine.answers import METADATA_TYPE, MetadataPage, parse_answer
from gateway.engine.packages import KnownPackage, find_description
from gateway.model.errors import BadNameError
from gateway.model.hidden_fields import shown
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id, parse_package_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.engine.registry import RegistryRecord
    from gateway.model.names import FileHandle, ModelId, PackageId

KNOWN_MANIFEST = 4


class PackageOnDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A package as the catalogue found it: its raw manifest, and which files are servable."""

    package: PackageId
    raw_manifest: bytes
    servable: frozenset[FileHandle]

    def __repr__(self) -> str:
        return shown(self, hidden=("raw_manifest",))


class _RawArtifact(msgspec.Struct):
    file_handle: str
    md5_hash: str | None = None


class _RawDependency(msgspec.Struct):
    name: str
    model_id: str
    model_package_id: str | None = None


class _RawManifest(msgspec.Struct):
    offline_manifest_version: int
    canonical_model_id: str
    model_id: str
    model_architecture: str
    task_type: str
    backend_type: str
    quantization: str
    package_artifacts: list[_RawArtifact]
    trusted_source: bool | None = None
    model_features: dict[str, msgspec.Raw] | None = None
    model_dependencies: list[_RawDependency] | None = None
    recommended_parameters: dict[str, msgspec.Raw] | None = None
    dynamic_batch_size_supported: bool | None = None
    static_batch_size: int | None = None


_MANIFESTS = msgspec.json.Decoder(_RawManifest)

_Head = dict[str, Any]


def find_local_answer(
    model: ModelId, on_disk: Iterable[PackageOnDisk], record: RegistryRecord | None = None
) -> MetadataPage | None:
    """The answer from the cache for this model; None when it has nothing that can be described."""
    head: _Head | None = None
    packages: list[dict[str, Any]] = []
    for found in sorted(on_disk, key=lambda one: one.package):
        manifest = _find_manifest(found, model)
        known = None if manifest is None else _find_known(found, manifest)
        if manifest is None or known is None:
            continue
        description = find_description(_with_details(known, record))
        own_head = _find_head(manifest)
        if description is None or own_head is None:
            continue
        head = own_head if head is None else head
        if own_head == head:
            packages.append(description)
    if head is None:
        return None
    variant = None if record is None else record.variant
    metadata = {"type": METADATA_TYPE, "modelId": model, "modelVariant": variant, **head}
    answer = parse_answer(msgspec.json.encode({"modelMetadata": {**metadata, "modelPackages": packages}}))
    return answer if answer.packages else None


def _find_manifest(found: PackageOnDisk, model: ModelId) -> _RawManifest | None:
    try:
        manifest = _MANIFESTS.decode(found.raw_manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    is_known = manifest.offline_manifest_version == KNOWN_MANIFEST
    return manifest if is_known and manifest.canonical_model_id == manifest.model_id == model else None


def _find_known(found: PackageOnDisk, manifest: _RawManifest) -> KnownPackage | None:
    try:
        files = {
            parse_file_handle(artifact.file_handle): (
                None if artifact.md5_hash is None else parse_md5(artifact.md5_hash)
            )
            for artifact in manifest.package_artifacts
        }
    except BadNameError:
        return None
    if not files or files.keys() != found.servable:
        return None
    return KnownPackage(
        package=found.package,
        backend=manifest.backend_type,
        quantization=manifest.quantization,
        is_batch_dynamic=manifest.dynamic_batch_size_supported,
        static_batch_size=manifest.static_batch_size,
        is_trusted=manifest.trusted_source is True,
        features=manifest.model_features,
        parameters=manifest.recommended_parameters,
        files=files,
    )


def _with_details(known: KnownPackage, record: RegistryRecord | None) -> KnownPackage:
    """The package with the record's details, if the record is about this very package."""
    recorded = None if record is None else record.packages.get(known.package)
    if recorded is None or recorded.backend != known.backend or recorded.files != known.files:
        return known
    return replace(known, details=recorded.details)


def _find_head(manifest: _RawManifest) -> _Head | None:
    """The fields of an answer that are common to all packages; None when a dependency's name is invalid."""
    try:
        dependencies = [_dependency(claimed) for claimed in manifest.model_dependencies or ()]
    except BadNameError:
        return None
    return {
        "modelArchitecture": manifest.model_architecture,
        "taskType": manifest.task_type,
        "modelDependencies": dependencies or None,
    }


def _dependency(claimed: _RawDependency) -> dict[str, Any]:
    package = claimed.model_package_id
    return {
        "type": "model-dependency-v1",
        "name": claimed.name,
        "modelId": parse_model_id(claimed.model_id),
        "modelPackageId": None if package is None else parse_package_id(package),
    }
