"""The catalogue: what is on disk, confirmed against it for the one thing about to be served.

Only the list of models comes from the last scan, and in which packages it is worth looking for a
digest. Packages, listings, digests and files are looked at on disk when they are asked for, going
down from the model's id: there is no index from a digest to its users, so a blob can be found only
along the packages that the caller was allowed (I2).

The guard asks nothing here before an allow, so how long an answer takes tells a stranger nothing
(I3). Whether a caller may know of a model is none of the catalogue's business.

One `open_file` of a shared blob is some 26 system calls: the root, `models-cache`, the model, the package
and `shared-blobs` opened and closed (10), the model's names listed (8), the manifest looked at (1), the link
read (1), the blob looked at, opened and checked (4). They take less than a tenth of a millisecond together
and run on the event loop: a thread would cost more than it saves. What is remembered between two questions
is what manifests say, as long as they stay as they are (`manifests.py`).

What takes longer takes turns: a manifest that has to be read in a thread is waited for, and a page of a
listing is looked at so many files at a time. What cannot be said is not called absent: without a cache
root, before the first scan, and while a volume comes or goes, the answer is `Unavailable` (`presence.py`).
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable
from gateway.model.listings import FileEntry, PackageListing
from gateway.model.pins import identity_of
from gateway.model.presence import NothingSeen
from gateway.model.verdicts import OpenFile
from gateway.resource.manifest import handle_of
from gateway.resource.manifests import Manifests, UnreadError, sleep_a_little
from gateway.resource.naming import MODELS_CACHE, model_directory
from gateway.resource.package import opened_package
from gateway.resource.presence import look_at_folders, verify_same
from gateway.resource.raw_model import RawPackage, RawPackages, load_raw_manifest, load_registry_record
from gateway.resource.scan import Survey
from gateway.resource.scanner import Scanner
from gateway.resource.tree import find_change_time, opened_model, package_names
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.model.listings import ListedPackage
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.ports import Clock
    from gateway.model.presence import SeenCache
    from gateway.resource.manifest import Artifact, Manifest
    from gateway.resource.package import Package
    from gateway.resource.presence import Folders
    from gateway.resource.raw_model import DescriptionBounds
    from gateway.resource.tree import ModelPlace

T = TypeVar("T")

FILES_PER_TURN = 100  # looked at without letting others have their turn: about 2 ms
PACKAGES_PER_TURN = 20
ATTEMPTS = 3  # a manifest that changes each time before it was read is no coincidence


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
    """The `Catalogue` of a cache folder. It holds no descriptor and never writes (I9).

    A command, which has nobody to hold up, has it read all manifests where they are asked for.
    """

    def __init__(
        self,
        settings: CatalogueSettings,
        clock: Clock,
        *,
        seen: SeenCache | None = None,
        reads_all_here: bool = False,
    ) -> None:
        self._root = settings.root
        self._link_roots = settings.link_roots
        self._clock = clock
        self._state = CatalogueState(root=str(settings.root))
        self._scanning = asyncio.Lock()
        self._moved_at: tuple[int, int] | None = None
        self.manifests = Manifests(clock, reads_all_here=reads_all_here)
        self._scanner = Scanner(
            settings.root, manifests=self.manifests, seen=seen or NothingSeen(), pause=sleep_a_little
        )
        self._known: tuple[frozenset[ModelId], dict[str, ModelId]] = (frozenset(), {})
        self._folders: Folders | None = None  # as of the last scan

    def state(self) -> CatalogueState:
        """What the last scan saw."""
        return self._state

    def verify_readable(self) -> None:
        """Raises `Unavailable` unless the last scan could say what is in the cache."""
        survey = self._state.survey
        if not survey.is_readable:
            why = survey.problem or "the cache has not been looked at yet"
            raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)

    def models(self) -> tuple[ModelId, ...]:
        """The models on disk, sorted, as of the last scan. Raises `Unavailable` where none could be made."""
        self.verify_readable()
        return self._state.survey.models

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan; the same object while nothing in it changed.

        Raises `Unavailable` as `models` does.
        """
        self.verify_readable()
        return self._state.survey.listed

    async def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as the disk has them now. Empty when there are none."""
        names = self._package_names(model)
        servable: list[PackageId] = []
        for number, package in enumerate(names, 1):
            if await self._is_servable(model, package):
                servable.append(package)
            if number % PACKAGES_PER_TURN == 0:
                await asyncio.sleep(0)
        if not servable:
            self._verify_same()
        return tuple(servable)

    async def listing(
        self, model: ModelId, package: PackageId, *, after: FileHandle | None = None, limit: int | None = None
    ) -> PackageListing | None:
        """A package's servable files in the order of their handles, as the disk has them now.

        So many at most, from those that the manifest lists after this handle; None when the package is not
        there as it should be.
        """
        manifest = await self._manifest(model, package)
        if manifest is None:
            return None
        first = 0 if after is None else bisect_right(manifest.artifacts, after, key=handle_of)
        end = len(manifest.artifacts) if limit is None else first + limit
        listed = [artifact.handle for artifact in manifest.artifacts[first:end]]
        files = await self.entries(model, package, listed)
        rest = end < len(manifest.artifacts)
        return PackageListing(
            model=model, package=package, files=tuple(files.values()), after=listed[-1] if rest else None
        )

    async def entries(
        self, model: ModelId, package: PackageId, handles: Sequence[FileHandle]
    ) -> dict[FileHandle, FileEntry]:
        """Those of these files that lie in the package as they should, as the disk has them now."""
        found: dict[FileHandle, FileEntry] = {}
        for start in range(0, len(handles), FILES_PER_TURN):
            if start:
                await asyncio.sleep(0)
            turn = handles[start : start + FILES_PER_TURN]
            found |= await self._brought(model, package, partial(self._entries, model, package, turn))
        if len(found) < len(handles):
            self._verify_same()
        return found

    async def has(self, model: ModelId, package: PackageId, handle: FileHandle | None) -> bool:
        """Whether the package is there as it should be, and in it this file."""
        if handle is None:
            return await self._manifest(model, package) is not None
        return bool(await self.entries(model, package, [handle]))

    async def find_blob(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """A file of this package that links this blob now, if there is one."""
        manifest = await self._manifest(model, package)
        linking = () if manifest is None else manifest.linking(md5)
        entries = await self.entries(model, package, [artifact.handle for artifact in linking])
        return next((one.handle for one in entries.values() if one.md5 == md5), None)

    async def open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Open a file safely; None when it is not there, or is there and the manifest does not list it.

        Raises `Refusal(UNSERVABLE)` when what lies there is not what the engine would have left.
        """
        opened = await self._brought(model, package, lambda: self._open_file(model, package, handle))
        if opened is None:
            self._verify_same()
        return opened

    def open_file_now(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """The same without waiting; None also where it would have to be waited for."""
        try:
            return self._open_file(model, package, handle)
        except UnreadError:
            return None

    async def raw_packages(self, model: ModelId, bounds: DescriptionBounds) -> RawPackages:
        """The packages of which all files are servable, with their manifests as they lie there.

        By their ids, until what whoever describes them can use is full; what is not in order is no package.
        """
        found: list[RawPackage] = []
        left_out = 0
        files, size = bounds.files, bounds.manifest_bytes
        for package in await self.packages(model):
            manifest = await self._manifest(model, package)
            if manifest is None or manifest.too_long:
                continue
            if len(found) >= bounds.packages or len(manifest.artifacts) > files:
                left_out += 1
                continue
            raw = self._raw_manifest(model, package, size)
            if raw is None:
                left_out += 1
                continue
            handles = [artifact.handle for artifact in manifest.artifacts]
            if len(await self.entries(model, package, handles)) < len(handles):
                continue
            files -= len(handles)
            size -= len(raw)
            unhashed = frozenset(one.handle for one in manifest.artifacts if one.unhashed)
            found.append(
                RawPackage(package=package, raw_manifest=raw, servable=frozenset(handles), unhashed=unhashed)
            )
        return RawPackages(packages=tuple(found), left_out=left_out)

    def _raw_manifest(self, model: ModelId, package: PackageId, max_bytes: int) -> bytes | None:
        try:
            with opened_model(self._root, model) as place:
                below = None if place is None else place.directory
                return load_raw_manifest(package, below=below, max_bytes=max_bytes)
        except Refusal:
            return None

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
            survey, folders = await asyncio.to_thread(self._look, known, started)
            seconds = max(0.0, self._clock.now() - started)
            if survey.models == self._state.survey.models:
                # The same object, so that whoever derived something from the list sees that it stands.
                survey = replace(survey, models=self._state.survey.models)
            self._folders = folders
            self._state = replace(self._state, survey=survey, seconds=seconds)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Have something done beside the event loop that is made of what lies here."""
        return await self.manifests.in_thread(work)

    def close(self) -> None:
        """Let go of the threads."""
        self.manifests.close()

    def _look(self, known: frozenset[ModelId], now: float) -> tuple[Survey, Folders | None]:
        """In the thread, the names of a hundred thousand known ids included; they are worked out once."""
        if known != self._known[0]:
            self._known = known, {model_directory(model): model for model in known}
        try:
            folders = look_at_folders(self._root)  # before the scan: what changes meanwhile is another folder
        except Unavailable:
            folders = None
        return self._scanner.look(self._known[1], now), folders

    def _verify_same(self) -> None:
        """Before something is said to be absent."""
        if self._folders is not None:
            self.verify_readable()
        verify_same(self._root, self._folders)

    async def _brought(self, model: ModelId, package: PackageId, look: Callable[[], T]) -> T:
        """What a look gives, once the manifest that it needs was read."""
        for _ in range(ATTEMPTS):
            try:
                return look()
            except UnreadError as unread:
                await self.manifests.bring(
                    unread.identity, lambda pause: self._read_manifest(model, package, pause)
                )
        why = f"the manifest of {package} changes faster than it can be read"
        raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)

    def _read_manifest(self, model: ModelId, package: PackageId, pause: Callable[[], None]) -> None:
        """In a thread. It goes down from the root by itself: whoever waits for it may have left."""
        with self._opened(model, package, lambda directory: self.manifests.read(directory, pause)):
            return

    async def _manifest(self, model: ModelId, package: PackageId) -> Manifest | None:
        """The manifest of a package that is there as it should be, else None."""

        def look() -> Manifest | None:
            with self._opened(model, package) as found:
                return None if found is None else found.manifest

        try:
            manifest = await self._brought(model, package, look)
        except Refusal:
            return None
        if manifest is None:
            self._verify_same()
        return manifest

    def _package_names(self, model: ModelId) -> list[PackageId]:
        try:
            with opened_model(self._root, model) as place:
                return [] if place is None else package_names(place.directory)[0]
        except Refusal:
            return []

    async def _is_servable(self, model: ModelId, package: PackageId) -> bool:
        """By its manifest alone: the model's names were looked at."""

        def look() -> bool:
            with opened_model(self._root, model) as place:
                if place is None:
                    return False
                with self._package(package, place, self.manifests.find) as found:
                    return found is not None and found.manifest.is_of(model)

        try:
            return await self._brought(model, package, look)
        except Refusal:
            return False

    def _entries(
        self, model: ModelId, package: PackageId, handles: Iterable[FileHandle]
    ) -> dict[FileHandle, FileEntry]:
        try:
            with self._opened(model, package) as found:
                if found is None:
                    return {}
                artifacts = (found.manifest.find(handle) for handle in handles)
                entries = (None if one is None else _find_entry(found, one) for one in artifacts)
                return {entry.handle: entry for entry in entries if entry is not None}
        except Refusal:
            return {}

    def _open_file(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        with self._opened(model, package) as found:
            artifact = None if found is None else found.manifest.find(handle)
            opened = None if found is None or artifact is None else found.open(artifact)
        if artifact is None or opened is None:
            return None
        descriptor, stat = opened
        return OpenFile(
            descriptor=descriptor,
            size=stat.st_size,
            identity=identity_of(stat),
            model=model,
            package=package,
            handle=handle,
            md5=artifact.blob,
        )

    @contextmanager
    def _opened(
        self,
        model: ModelId,
        package: PackageId,
        find_manifest: Callable[[int], Manifest | None] | None = None,
    ) -> Iterator[Package | None]:
        """The package, open; None when it is not there. Raises `Refusal` for everything in between.

        And `UnreadError`, unless it is told another way to the manifest.
        """
        with opened_model(self._root, model) as place:
            if place is None:
                yield None
                return
            _, ambiguous = package_names(place.directory)
            if package in ambiguous:
                raise unservable("another package differs from it only by case")
            with self._package(package, place, find_manifest or self.manifests.find) as found:
                if found is not None and not found.manifest.is_of(model):
                    raise unservable("the manifest names another model")
                yield found

    def _package(
        self, package: PackageId, place: ModelPlace, find_manifest: Callable[[int], Manifest | None]
    ) -> AbstractContextManager[Package | None]:
        return opened_package(
            package,
            below=place.directory,
            root=place.root,
            roots=self._link_roots,
            find_manifest=find_manifest,
        )


def _find_entry(package: Package, artifact: Artifact) -> FileEntry | None:
    """A listed file as it lies on disk; None when it is not there as it should be."""
    try:
        stat = package.inspect(artifact)
    except Refusal:
        return None
    if stat is None:
        return None
    return FileEntry(handle=artifact.handle, size=stat.st_size, md5=artifact.blob)
