"""Which blobs each package lists, as of the last scan: where it is worth looking for a digest.

Opening thousands of manifests for one digest would hold up everybody else, and a digest that is
nowhere takes them all. So the scan, which has every manifest in hand anyway, notes the digests. The
note only narrows: the package is opened and its link looked at before anything is served, and there
still is no way from a digest to those who use it (I2), only from a package to its digests.

Memory is bounded by whoever writes manifests only up to `MAX_LISTED_DIGESTS`. Packages beyond that
are noted without digests, which means that they have to be looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.verdicts import ListedPackage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.model.names import Md5, ModelId, PackageId
    from gateway.resource.manifest import Manifest

MAX_LISTED_DIGESTS = 200_000
"""Ten thousand packages of twenty files; about 25 MB. Packages that share blobs share the digests."""


class Listed:
    """The notes of one scan under way."""

    def __init__(self, former: Iterable[ListedPackage] = (), *, room: int = MAX_LISTED_DIGESTS) -> None:
        self._former = {(one.model, one.package): one for one in former}
        self._packages: list[ListedPackage] = []
        self._room = room
        self._known: dict[Md5, Md5] = {}

    def add(self, model: ModelId, package: PackageId, manifest: Manifest) -> None:
        """Note a package that is servable."""
        found = {artifact.blob for artifact in manifest.artifacts if artifact.blob is not None}
        digests = None
        if len(found) <= self._room:
            self._room -= len(found)
            digests = frozenset(self._known.setdefault(md5, md5) for md5 in found)
        listed = ListedPackage(model=model, package=package, digests=digests)
        former = self._former.get((model, package))
        self._packages.append(former if former is not None and former == listed else listed)

    def packages(self, former: Sequence[ListedPackage]) -> Sequence[ListedPackage]:
        """All of them, by model and package; the former object where nothing changed."""
        packages = tuple(sorted(self._packages, key=lambda one: (one.model, one.package)))
        is_same = len(packages) == len(former) and all(
            one is other for one, other in zip(packages, former, strict=True)
        )
        return former if is_same else packages
