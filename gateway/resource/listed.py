"""Which blobs a package may list, as of the last scan: where it is worth looking for a digest.

Opening thousands of manifests for one digest would hold up everybody else, and a digest that is
nowhere takes them all. So the scan, which has every manifest in hand anyway, keeps the beginning of
each digest in it: four bytes. The note only narrows: the package is opened and its link looked at
before anything is served, and there still is no way from a digest to those who use it (I2), only from
a package to its digests.

A package costs about 200 bytes, and four for each of its blobs; whoever writes manifests writes more
than that into each of them.
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
    """The note of a servable package. The same manifest makes an equal one."""
    return ListedPackage(model=model, package=package, marks=marks_of(manifest))


def marks_of(manifest: Manifest) -> bytes:
    """The beginning of each digest, sorted."""
    marks = {bytes.fromhex(blob[:MARK_DIGITS]) for blob in manifest.by_blob}
    return b"".join(sorted_in_slices(list(marks)))


class Listed:
    """The notes of all models, kept from look to look."""

    def __init__(self) -> None:
        self._of: dict[ModelId, tuple[ListedPackage, ...]] = {}
        self._all: tuple[ListedPackage, ...] | None = ()

    def note(self, model: ModelId | None, listed: tuple[ListedPackage, ...]) -> None:
        """What this model lists now."""
        if model is not None and self._of.get(model) != listed:
            self._of[model], self._all = listed, None

    def drop(self, model: ModelId | None) -> None:
        """This model is gone."""
        if model is not None and self._of.pop(model, None) is not None:
            self._all = None

    def of(self, models: Iterable[ModelId]) -> tuple[ListedPackage, ...]:
        """All packages, model by model; the same object while none changed. `models` are all there are."""
        if self._all is None:
            self._all = tuple(chain.from_iterable(self._of[model] for model in models))
        return self._all
