"""The manifest (`model_config.json`): which files a package has, and by what digest.

The engine writes it last, once a package has loaded: a package without one is not finished. It is
not signed and carries no tenant, so it can only narrow what is served: a file that it does not list
is not a file of the package, and a package whose manifest says that it belongs to another model, or
that the engine itself would call corrupted, is not served at all.

Any version is accepted, and none at all. Version 4 is what the engine writes today; only that one
has every field. Older ones lack some, and which files they name, they name in the same way: what is
not said is derived (a file with a digest is a shared blob, one without is the package's own), and
one that names no files has none. Two of the engine's demands are not made here, because nothing
that is served depends on them: that all fields be there, and that the files be sorted.

No content is checked against a digest here; that is the business of pins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import BadNameError, NameTooLongError
from gateway.model.names import parse_file_handle, parse_md5, parse_model_id
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""A file takes about 200 bytes in it, so ten thousand files fit twice. It is read on the event loop:
whoever can write one must not be able to hold up everybody else for longer than some milliseconds."""


class Storage(StrEnum):
    """Where a file's content lies; the values are the manifest's own."""

    SHARED_BLOB = "shared_blob"
    PACKAGE_FILE = "package_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file that a manifest lists. `md5` is set for every shared blob and for no unhashed file."""

    handle: FileHandle
    md5: Md5 | None
    storage: Storage

    @property
    def unhashed(self) -> bool:
        """Whether the provider gave no digest for it."""
        return self.md5 is None

    @property
    def blob(self) -> Md5 | None:
        """The blob that holds it, if one does.

        A package file that comes with a digest is still nobody's blob: were it taken for one, a wrong
        one would bring the right blob of all other tenants into doubt.
        """
        return self.md5 if self.storage is Storage.SHARED_BLOB else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is needed of a manifest: whose package it is, and its files in the order of their handles."""

    version: int | None
    canonical_model_id: ModelId | None
    cache_model_id: ModelId | None  # the owner of the directory; the manifest calls it `model_id`
    artifacts: tuple[Artifact, ...]
    too_long: int = 0  # files whose handle is beyond the bounds of `names.py`: they are left out, alone

    def is_of(self, model: ModelId) -> bool:
        """Whether nothing in it contradicts that the package is this model's."""
        return self.canonical_model_id in {None, model} and self.cache_model_id in {None, model}

    def find(self, handle: FileHandle) -> Artifact | None:
        """The listed file of this name."""
        return next((artifact for artifact in self.artifacts if artifact.handle == handle), None)


class _RawArtifact(msgspec.Struct):
    file_handle: str
    md5_hash: str | None = None
    unhashed: bool | None = None
    storage: Storage | None = None


class _RawManifest(msgspec.Struct):
    offline_manifest_version: int | None = None
    canonical_model_id: str | None = None
    model_id: str | None = None
    package_artifacts: list[_RawArtifact] | None = None


_DECODER = msgspec.json.Decoder(_RawManifest)


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in these bytes. Raises `Refusal(UNSERVABLE)` for everything that is none."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise unservable(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        claimed = _DECODER.decode(raw)
        parsed = [_find_artifact(item) for item in claimed.package_artifacts or ()]
        artifacts = [artifact for artifact in parsed if artifact is not None]
        _verify_distinct(artifacts)
        return Manifest(
            version=claimed.offline_manifest_version,
            canonical_model_id=_parse_optional_id(claimed.canonical_model_id),
            cache_model_id=_parse_optional_id(claimed.model_id),
            artifacts=tuple(sorted(artifacts, key=lambda artifact: artifact.handle)),
            too_long=len(parsed) - len(artifacts),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unservable("the manifest is not JSON of the expected shape") from error
    except BadNameError as error:
        raise unservable(f"the manifest holds a bad name: {error}") from error


def _parse_optional_id(claimed: str | None) -> ModelId | None:
    return None if claimed is None else parse_model_id(claimed)


def _find_artifact(claimed: _RawArtifact) -> Artifact | None:
    """The listed file; None for one whose handle is too long to be served, which costs no other file."""
    try:
        return _parse_artifact(claimed)
    except NameTooLongError:
        return None


def _parse_artifact(claimed: _RawArtifact) -> Artifact:
    handle = parse_file_handle(claimed.file_handle)
    if any(_is_lock_name(segment) for segment in handle.split("/")):
        raise BadNameError("not a file handle: a lock file")
    md5 = None if claimed.md5_hash is None else parse_md5(claimed.md5_hash)
    if claimed.unhashed not in {None, md5 is None}:
        raise BadNameError("a file is hashed or unhashed, not both")
    storage = claimed.storage or (Storage.PACKAGE_FILE if md5 is None else Storage.SHARED_BLOB)
    if md5 is None and storage is not Storage.PACKAGE_FILE:
        raise BadNameError("a file without a digest cannot be a shared blob")
    return Artifact(handle=handle, md5=md5, storage=storage)


def _is_lock_name(segment: str) -> bool:
    # The engine's test ignores case and counts `.lock` itself.
    return segment.startswith(".") and segment.lower().endswith(".lock")


@dataclass(slots=True)
class _Place:
    """One name in the tree of handles, as it was first spelled."""

    spelling: str
    is_file: bool
    below: dict[str, _Place]


def _verify_distinct(artifacts: list[Artifact]) -> None:
    """Refuse two handles that some file system would make one, or that need one name as file and directory.

    A walk down a tree, one step a segment: hostile manifests cost no more than honest ones.
    """
    top: dict[str, _Place] = {}
    for artifact in artifacts:
        *folders, name = artifact.handle.split("/")
        places = top
        for folder in folders:
            place = places.setdefault(folder.lower(), _Place(folder, is_file=False, below={}))
            if place.is_file or place.spelling != folder:
                raise BadNameError("two file handles collide")
            places = place.below
        if name.lower() in places:
            raise BadNameError("two file handles collide")
        places[name.lower()] = _Place(name, is_file=True, below={})
