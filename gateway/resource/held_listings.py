"""Cache of listings of models and packages, each checked against the disk before it is shown again.

A listing says which packages a model has, which files a package has and how large they are, or what is in the
manifests of all packages whose files are there (for the engine's metadata). So everything
that it was made of is checked (`disk_checks.py`): the folder of the model, the folders and manifests of its
packages, and each file that is listed. Two packages that differ by case only, a changed manifest, a file that
is gone or was replaced all change one of these. As for files, what no check notices (a folder further up or
down that became a link) is noticed after two seconds, when the listing is made anew.

Only listings with few checks are cached: each costs a `stat` each time, and all of them have to end before
other requests run. What changed a moment ago is not cached.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING

import msgspec

from gateway.model.bounded_memory import BoundedMemory
from gateway.model.listings import PackageListing
from gateway.resource.disk_checks import CHECK_BYTES, SeenOnDisk, are_reliable, find_identity
from gateway.resource.naming import MANIFEST, MODELS_CACHE, model_directory
from gateway.resource.raw_model import OFFLINE_REGISTRY, RawPackages, registry_record_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from gateway.model.access import Page
    from gateway.model.names import ModelId, PackageId
    from gateway.model.pins import StatIdentity
    from gateway.resource.disk_checks import PathCheck
    from gateway.resource.held_files import Clocks

    Listing = PackageListing | RawPackages | tuple[PackageId, ...]

MAX_CHECKS = 64  # some 1.4 us each
HELD_SECONDS = 2.0
LISTING_BYTES = 1_500
ENTRY_BYTES = 250  # of one file or package
_SIZE = 2  # in an identity


class HeldListing(msgspec.Struct, frozen=True):
    """Files of a package, or packages of a model, and what that was made of."""

    found: Listing
    entries: int
    checks: tuple[PathCheck, ...]
    until: float


class HeldListings:
    """The cached listings of one worker. A listing is made between `checks_of...` and `hold...`."""

    def __init__(self, *, root: Path, clock: Clocks, max_bytes: int) -> None:
        self._root = str(root)
        self._clock = clock
        self.memory: BoundedMemory[object, HeldListing] = BoundedMemory(
            max_bytes=max_bytes, weigh=lambda _, held: _held_bytes(held)
        )

    def find_packages(self, model: ModelId, looks: SeenOnDisk) -> tuple[PackageId, ...] | None:
        """The servable packages of a model, if they are cached and the same now."""
        found = self._find(model, looks)
        return found if isinstance(found, tuple) else None

    def find_listing(
        self, model: ModelId, package: PackageId, page: Page, looks: SeenOnDisk
    ) -> PackageListing | None:
        """The files of a package, if they are cached and the same now."""
        found = self._find((model, package, page), looks)
        return found if isinstance(found, PackageListing) else None

    def find_manifests(self, model: ModelId, looks: SeenOnDisk) -> RawPackages | None:
        """The packages of a model with their manifests, if they are cached and the same now."""
        found = self._find((model, RawPackages), looks)
        return found if isinstance(found, RawPackages) else None

    def find_record(self, model: ModelId, looks: SeenOnDisk) -> StatIdentity | None:
        """What the registry record of a model is now; None when there is none."""
        return looks.find(f"{self._root}/{OFFLINE_REGISTRY}/{registry_record_name(model)}")

    def is_settled(self, record: StatIdentity | None) -> bool:
        """Whether any later change of this record would show; that of one that is not there does."""
        return record is None or are_reliable([("", False, record)], self._clock.now())

    def checks_of_model(self, model: ModelId) -> tuple[PathCheck, ...]:
        """What the list of packages is about to be made of; empty when it cannot be seen."""
        return _look([self._folder(model)])

    def checks_of_package(self, model: ModelId, package: PackageId) -> tuple[PathCheck, ...]:
        """What a list of files is about to be made of; empty when a part of it cannot be seen."""
        folder = self._folder(model)
        return _look([folder, f"{folder}/{package}", f"{folder}/{package}/{MANIFEST}"])

    def hold_packages(
        self, model: ModelId, packages: tuple[PackageId, ...], before: tuple[PathCheck, ...]
    ) -> None:
        """Cache the packages of a model. `before` is what `checks_of_model` saw."""
        folders = [f"{self._folder(model)}/{package}" for package in packages[:MAX_CHECKS]]
        parts = _look([path for folder in folders for path in (folder, f"{folder}/{MANIFEST}")])
        if len(parts) == 2 * len(packages):
            self._hold(model, packages, len(packages), before, parts)

    def hold_listing(self, listing: PackageListing, page: Page, before: tuple[PathCheck, ...]) -> None:
        """Cache the files of a package. `before` is what `checks_of_package` saw."""
        files = listing.files[:MAX_CHECKS]
        folder = f"{self._folder(listing.model)}/{listing.package}"
        parts = _look([f"{folder}/{one.handle}" for one in files], follows=True)
        sizes = [identity[_SIZE] for _, _, identity in parts]
        # They differ for a link that is written for another root, and for a file that changed meanwhile.
        if sizes == [one.size for one in listing.files]:
            self._hold((listing.model, listing.package, page), listing, len(files), before, parts)

    def hold_manifests(self, model: ModelId, found: RawPackages, before: tuple[PathCheck, ...]) -> None:
        """Cache the packages of a model with their manifests. `before` is what `checks_of_model` saw."""
        folders = [(f"{self._folder(model)}/{one.package}", one) for one in found.packages[:MAX_CHECKS]]
        around = [path for folder, _ in folders for path in (folder, f"{folder}/{MANIFEST}")]
        files = [f"{folder}/{handle}" for folder, one in folders for handle in one.servable]
        if found.left_out or len(around) + len(files) > MAX_CHECKS:
            return
        parts = (*_look(around), *_look(files, follows=True))
        if len(parts) == len(around) + len(files):
            size = sum([len(one.raw_manifest) for one in found.packages])
            entries = len(files) + size // ENTRY_BYTES + 1
            self._hold((model, RawPackages), found, entries, before, parts)

    def _folder(self, model: ModelId) -> str:
        return f"{self._root}/{MODELS_CACHE}/{model_directory(model)}"

    def _find(self, name: object, looks: SeenOnDisk) -> Listing | None:
        held = self.memory.find(name)
        if held is None:
            return None
        if self._clock.monotonic() < held.until and looks.agree(held.checks):
            return held.found
        self.memory.drop(name)
        return None

    def _hold(
        self,
        name: object,
        found: Listing,
        entries: int,
        before: tuple[PathCheck, ...],
        parts: tuple[PathCheck, ...],
    ) -> None:
        checks = (*before, *parts)
        is_known = bool(before) and len(checks) <= MAX_CHECKS
        if is_known and are_reliable(checks, self._clock.now()) and SeenOnDisk().agree(before):
            self.memory.put(name, HeldListing(found, entries, checks, self._clock.monotonic() + HELD_SECONDS))


def _look(paths: Sequence[str], *, follows: bool = False) -> tuple[PathCheck, ...]:
    """Checks that these paths are what they are now; empty when one of them cannot be seen."""
    seen = [(path, follows, find_identity(path, follows=follows)) for path in paths]
    checks = tuple((path, follows, identity) for path, follows, identity in seen if identity is not None)
    return checks if len(checks) == len(paths) else ()


def _held_bytes(held: HeldListing) -> int:
    paths: Iterable[str] = (path for path, _, _ in held.checks)
    return LISTING_BYTES + sum([CHECK_BYTES + getsizeof(path) for path in paths]) + ENTRY_BYTES * held.entries
