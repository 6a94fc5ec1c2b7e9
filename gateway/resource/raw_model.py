"""Load a model's own files as raw bytes, to describe the model: its manifests and its registry record.

Here a manifest is read for what it says of the package, not for its files alone, and a whole answer is made
at once. Therefore its size is bounded (`DescriptionBounds`).

The engine leaves a manifest in each package, and, where it was told to prepare for offline use, a record of
the whole model in a folder beside the caches, under the name of the model's directory. Both are opened as
everything below the root is: by their own names, never through a link. This module does not interpret them,
and neither is ever served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.model.hidden_fields import shown
from gateway.resource.naming import MANIFEST, model_directory
from gateway.resource.safe_open import load_regular, opened_directory, opened_root

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.names import FileHandle, ModelId, PackageId

OFFLINE_REGISTRY = "offline-weights-registry"
MAX_RECORD_BYTES = 1024 * 1024
"""About 100 bytes a file, all packages together: ten thousand files. It is read in a thread. A larger record
would not be used, since an answer has two thousand files at most.
"""


class RawPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A package whose manifest is valid: the raw manifest, and which files are servable."""

    package: PackageId
    raw_manifest: bytes
    servable: frozenset[FileHandle]
    unhashed: frozenset[FileHandle]  # those of them that have no digest

    def __repr__(self) -> str:
        return shown(self, hidden=("raw_manifest",))


class RawPackages(msgspec.Struct, frozen=True, kw_only=True):
    """The packages of a model that can be described, and how many are left out because there is no room."""

    packages: tuple[RawPackage, ...]
    left_out: int


class DescriptionBounds(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The limits of one description of a model, all its packages together."""

    packages: int
    files: int
    manifest_bytes: int


def load_raw_manifest(package: PackageId, *, below: int | None, max_bytes: int) -> bytes | None:
    """The bytes of a package's manifest; None when there is none.

    Raises `Refusal(UNSERVABLE)` when it is no regular file, or too large.
    """
    with opened_directory(package, below=below) as directory:
        if directory is None:
            return None
        return load_regular(MANIFEST, below=directory, max_bytes=max_bytes, what="the manifest")


def registry_record_name(model: ModelId) -> str:
    """The name of the model's record in its folder."""
    return f"{model_directory(model)}.json"


def load_registry_record(root: Path, model: ModelId) -> bytes | None:
    """The bytes of the model's record; None when there is none.

    Raises `Refusal(UNSERVABLE)` when it is no regular file, or too large.
    """
    with opened_root(root) as top, opened_directory(OFFLINE_REGISTRY, below=top) as folder:
        if folder is None:
            return None
        name = registry_record_name(model)
        return load_regular(name, below=folder, max_bytes=MAX_RECORD_BYTES, what="the registry record")
