"""The catalogue: what is on disk, confirmed against it for the one thing about to be served.

Only the list of models comes from the last scan, and in which packages it is worth looking for a
digest. Packages, listings, digests and files are looked at on disk when they are asked for, going
down from the model's id: there is no index from a digest to its users, so a blob can be found only
along the packages that the caller was allowed (I2).

The guard asks nothing here before an allow, so how long an answer takes tells a stranger nothing
(I3). Whether a caller may know of a model is none of the catalogue's business.

One `open_file` of a shared blob is 30 system calls: the root, `models-cache`, the model, the package
and `shared-blobs` opened and closed (10), the model's names listed (8), the manifest looked at,
opened, checked, read and closed (7), the link read (1), the blob looked at, opened and checked (4).
They take less than a tenth of a millisecond together and run on the event loop: a thread would cost
more than it saves. Nothing is remembered between two questions, so there is nothing to be stale.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gateway.model.errors import Misconfigured, Refusal
from gateway.model.listings import FileEntry, PackageListing
from gateway.model.verdicts import OpenFile
from gateway.resource.naming import MODELS_CACHE, model_directory
from gateway.resource.package import opened_package
from gateway.resource.raw_model import RawPackage, load_registry_record, raw_packages
from gateway.resource.scan import Survey
from gateway.resource.scanner import Scanner
from gateway.resource.tree import find_change_time, opened_model, package_names
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from gateway.model.listings import ListedPackage
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.ports import Clock
    from gateway.resource.manifest import Artifact
    from gateway.resource.package import Package
    from gateway.resource.tree import ModelPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueSettings:
    """Where the cache is, and under which other names its writers knew it.

    The engine writes absolute links. On a volume that is mounted elsewhere than its writer had it,
    they name the writer's root; `alias_roots` says which such names are the same place as `root`.
    """

    root: Path
    alias_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """A link's text is compared with these, and the engine writes no relative one."""
        for alias in self.alias_roots:
            if not alias.startswith("/") or os.path.normpath(alias) != alias.rstrip("/"):
                why = f"{alias!r} is not a plain absolute path below /, such as /data/cache"
                raise Misconfigured("alias roots", why)

    @property
    def link_roots(self) -> tuple[str, ...]:
        """Every name of the root that may stand in a link: ours first. Links in it are not resolved."""
        own = os.path.abspath(self.root)  # noqa: PTH100 -- as the engine makes its links; it resolves none
        return tuple(dict.fromkeys((own, *(alias.rstrip("/") for alias in self.alias_roots))))


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueState:
    """The last scan, for `/readyz` and `models show`."""

    root: str
    survey: Survey = field(default_factory=Survey)
    seconds: float = 0.0


class DiskCatalogue:
    """The `Catalogue` of a cache folder. It holds no descriptor and never writes (I9)."""

    def __init__(self, settings: CatalogueSettings, clock: Clock) -> None:
        self._root = settings.root
        self._link_roots = settings.link_roots
        self._clock = clock
        self._state = CatalogueState(root=str(settings.root))
        self._scanning = asyncio.Lock()
        self._moved_at: tuple[int, int] | None = None
        self._scanner = Scanner(settings.root)
        self._known: tuple[frozenset[ModelId], dict[str, ModelId]] = (frozenset(), {})

    def state(self) -> CatalogueState:
        """What the last scan saw."""
        return self._state

    def models(self) -> tuple[ModelId, ...]:
        """The models on disk, sorted, as of the last scan."""
        return self._state.survey.models

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan; the same object while nothing in it changed."""
        return self._state.survey.listed

    def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as the disk has them now. Empty when there are none."""
        try:
            with opened_model(self._root, model) as place:
                if place is None:
                    return ()
                clear, _ = package_names(place.directory)
                return tuple(package for package in clear if self._is_servable(place, model, package))
        except Refusal:
            return ()

    def listing(self, model: ModelId, package: PackageId) -> PackageListing | None:
        """A package's servable files, as the disk has them now; None when it is not there as it should be."""
        try:
            with self._opened(model, package) as found:
                if found is None:
                    return None
                entries = (_find_entry(found, artifact) for artifact in found.manifest.artifacts)
                files = tuple(entry for entry in entries if entry is not None)
        except Refusal:
            return None
        return PackageListing(model=model, package=package, files=files)

    def find_blob(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """A file of this package that links this blob now, if there is one."""
        try:
            with self._opened(model, package) as found:
                if found is None:
                    return None
                links = (
                    artifact
                    for artifact in found.manifest.artifacts
                    if artifact.blob == md5 and _find_entry(found, artifact) is not None
                )
                return next((artifact.handle for artifact in links), None)
        except Refusal:
            return None

    def open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Open a file safely; None when it is not there, or is there and the manifest does not list it.

        Raises `Refusal(UNSERVABLE)` when what lies there is not what the engine would have left.
        """
        with self._opened(model, package) as found:
            artifact = None if found is None else found.manifest.find(handle)
            opened = None if found is None or artifact is None else found.open(artifact)
        if artifact is None or opened is None:
            return None
        descriptor, stat = opened
        return OpenFile(
            descriptor=descriptor,
            size=stat.st_size,
            identity=(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns),
            model=model,
            package=package,
            handle=handle,
            md5=artifact.blob,
        )

    def raw_packages(self, model: ModelId) -> list[RawPackage]:
        """A model's packages with their manifests as they lie there, for whoever describes it."""
        return raw_packages(self._root, self._link_roots, model)

    def registry_record(self, model: ModelId) -> bytes | None:
        """The engine's own record of a model, as it lies there. Raises `Refusal(UNSERVABLE)`."""
        return load_registry_record(self._root, model)

    def has_moved(self) -> bool:
        """Whether a model's directory has come or gone since this was asked last: one look from outside."""
        before, self._moved_at = self._moved_at, find_change_time(self._root, MODELS_CACHE)
        return self._moved_at != before

    async def refresh(self, known: Iterable[ModelId]) -> None:
        """Look at the disk again, off the event loop; `known` ids name directories whose manifests do not.

        One look at a time. Readers see the former one until the new one is complete.
        """
        known = frozenset(known)
        async with self._scanning:
            started = self._clock.now()
            survey = await asyncio.to_thread(self._look, known, started)
            seconds = max(0.0, self._clock.now() - started)
            if survey.models == self.models():
                # The same object, so that whoever derived something from the list sees that it stands.
                survey = replace(survey, models=self.models())
            self._state = replace(self._state, survey=survey, seconds=seconds)

    def _look(self, known: frozenset[ModelId], now: float) -> Survey:
        """In the thread, the names of a hundred thousand known ids included; they are worked out once."""
        if known != self._known[0]:
            self._known = known, {model_directory(model): model for model in known}
        return self._scanner.look(self._known[1], now)

    def _is_servable(self, place: ModelPlace, model: ModelId, package: PackageId) -> bool:
        try:
            with opened_package(
                package, below=place.directory, root=place.root, roots=self._link_roots
            ) as found:
                return found is not None and found.manifest.is_of(model)
        except Refusal:
            return False

    @contextmanager
    def _opened(self, model: ModelId, package: PackageId) -> Iterator[Package | None]:
        """The package, open; None when it is not there. Raises `Refusal` for everything in between."""
        with opened_model(self._root, model) as place:
            if place is None:
                yield None
                return
            _, ambiguous = package_names(place.directory)
            if package in ambiguous:
                raise unservable("another package differs from it only by case")
            with opened_package(
                package, below=place.directory, root=place.root, roots=self._link_roots
            ) as found:
                if found is not None and not found.manifest.is_of(model):
                    raise unservable("the manifest names another model")
                yield found


def _find_entry(package: Package, artifact: Artifact) -> FileEntry | None:
    """A listed file as it lies on disk; None when it is not there as it should be."""
    try:
        stat = package.inspect(artifact)
    except Refusal:
        return None
    if stat is None:
        return None
    return FileEntry(handle=artifact.handle, size=stat.st_size, md5=artifact.blob)
