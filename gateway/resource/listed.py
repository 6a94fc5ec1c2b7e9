"""Index of the last scan: which packages may list a given digest.

Opening thousands of manifests for one digest would hold the event loop, and a digest that does not exist
would need all of them. Therefore the scan, which reads every manifest anyway, keeps the first four bytes of
each digest in it. The index only narrows the search: the package is opened and its link checked before
anything is served, and there is still no way from a digest to the packages that use it (I2), only from a
package to its digests.

A package costs about 200 bytes, and four for each of its blobs; each manifest on disk is larger than that.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from gateway.model.listings import MARK_DIGITS, ListedPackage
from gateway.resource.slices import sorted_in_slices

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.model.names import ModelId, PackageId
    from gateway.resource.manifest import Manifest


def list_package(model: ModelId, package: PackageId, manifest: Manifest) -> ListedPackage:
    """The index entry of a servable package. Equal manifests give equal entries."""
    return ListedPackage(model=model, package=package, marks=marks_of(manifest))


def marks_of(manifest: Manifest) -> bytes:
    """The first bytes of each digest, sorted."""
    marks = {bytes.fromhex(blob[:MARK_DIGITS]) for blob in manifest.by_blob}
    return b"".join(sorted_in_slices(list(marks)))


class Listed:
    """The index entries of all models, kept from scan to scan."""

    def __init__(self) -> None:
        self._of: dict[ModelId, tuple[ListedPackage, ...]] = {}
        self._all: tuple[ListedPackage, ...] | None = ()

    def note(self, model: ModelId | None, listed: tuple[ListedPackage, ...]) -> None:
        """Store what this model lists now."""
        if model is not None and self._of.get(model) != listed:
            self._of[model], self._all = listed, None

    def drop(self, model: ModelId | None) -> None:
        """Remove a model that is gone."""
        if model is not None and self._of.pop(model, None) is not None:
            self._all = None

    def of(self, models: Iterable[ModelId]) -> tuple[ListedPackage, ...]:
        """All packages, model by model; the same object while none changed. `models` must be all models."""
        if self._all is None:
            self._all = tuple(chain.from_iterable(self._of[model] for model in models))
        return self._all
