"""The catalogue: what is on disk, checked against the disk for each request.

Two things come from the last scan: the list of models, and which packages may list a given digest. Packages,
listings, digests and files are read from disk when they are asked for, starting from the model's id. There is
no index from a digest to the packages that use it, so a blob can be found only through the packages that the
caller is allowed to read (I2).

The guard calls nothing here before an allow, so the time of an answer tells an anonymous caller nothing (I3).
Whether a caller may know of a model is not decided here.

One `open_file` of a shared blob takes some 26 system calls: open and close the root, `models-cache`, the
model, the package and `shared-blobs` (10), list the model's names (8), stat the manifest (1), read the link
(1), stat, open and verify the blob (4). Together they take less than a tenth of a millisecond and run on the
event loop: a thread would cost more than it saves. The only thing cached between calls is parsed manifests,
for as long as their files do not change (`manifests.py`).

Longer work does not hold the event loop: a manifest that has to be read in a thread is awaited, and a listing
checks a bounded number of files per iteration of the event loop. What cannot be determined is not reported as
absent: without a cache root, before the first scan, and while a volume is mounted or unmounted, the answer is
`Unavailable` (`presence.py`).
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Misconfigured, Reason, Refusal, Unavailable
from gateway.model.listings import FileEntry, PackageListing
from gateway.model.pins import identity_of
from gateway.model.presence import NothingSeen
from gateway.model.verdicts import OpenFile
from gateway.resource.manifest import handle_of
from gateway.resource.manifests import Manifests, UnreadError, sleep_a_little
from gateway.resource.naming import MODELS_CACHE, model_directory
from gateway.resource.package import opened_package
from gateway.resource.presence import read_folders, verify_same
from gateway.resource.raw_model import RawPackage, RawPackages, load_raw_manifest, load_registry_record
from gateway.resource.scan import Survey
from gateway.resource.scanner import Scanner
from gateway.resource.tree import find_change_time, opened_model, package_names
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway.model.clocks import Clock
    from gateway.model.listings import ListedPackage
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.presence import SeenCache
    from gateway.resource.manifest import Artifact, Manifest
    from gateway.resource.package import Package
    from gateway.resource.presence import Folders
    from gateway.resource.raw_model import DescriptionBounds
    from gateway.resource.tree import ModelPlace

T = TypeVar("T")

FILES_PER_TURN = 100  # checked before yielding to the event loop: about 2 ms
PACKAGES_PER_TURN = 20
ATTEMPTS = 3  # a manifest that changes before each of so many reads is no coincidence


class CatalogueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cache is, and under which other paths its writers knew it.

    The engine writes absolute links. On a volume that is mounted at another path than its writer had, they
    name the writer's root; `alias_roots` lists such paths, which count as `root`.
    """

    root: Path
    alias_roots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Verify that each alias is a plain absolute path: link texts are compared with them."""
        for alias in self.alias_roots:
            if not alias.startswith("/") or os.path.normpath(alias) != alias.rstrip("/"):
                why = f"{alias!r} is not a plain absolute path below /, such as /data/cache"
                raise Misconfigured("alias roots", why)

    @property
    def link_roots(self) -> tuple[str, ...]:
        """Every path of the root that may stand in a link, ours first.

        Links in the path itself are not resolved.
        """
        own = os.path.abspath(self.root)  # noqa: PTH100 -- as the engine makes its links; it resolves none
        return tuple(dict.fromkeys((own, *(alias.rstrip("/") for alias in self.alias_roots))))


class CatalogueState(msgspec.Struct, frozen=True, kw_only=True):
    """The result of the last scan, for `/readyz` and `models show`."""

    root: str
    survey: Survey = msgspec.field(default_factory=Survey)
    seconds: float = 0.0


class DiskCatalogue:
    """The `Catalogue` of a cache folder. It keeps no descriptor open and never writes (I9).

    With `reads_all_here` every manifest is read in the calling thread: for commands, which have no event loop
    to keep free.
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
        """The result of the last scan."""
        return self._state

    def verify_readable(self) -> None:
        """Raises `Unavailable` unless the last scan could determine what is in the cache."""
        survey = self._state.survey
        if not survey.is_readable:
            why = survey.problem or "the cache has not been looked at yet"
            raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)

    def models(self) -> tuple[ModelId, ...]:
        """The models on disk, sorted, as of the last scan. Raises `Unavailable` when the scan failed."""
        self.verify_readable()
        return self._state.survey.models

    def listed(self) -> Sequence[ListedPackage]:
        """Their servable packages as of the last scan; the same object while nothing in it changed.

        Raises `Unavailable` as `models` does.
        """
        self.verify_readable()
        return self._state.survey.listed

    async def packages(self, model: ModelId) -> tuple[PackageId, ...]:
        """The servable packages of a model, sorted, as they are on disk now. Empty when there are none."""
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
        """A package's servable files, sorted by handle, as they are on disk now.

        At most `limit` files, from those that the manifest lists after the handle `after`. None when the
        package is missing or not servable.
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
        """Those of the named files that exist in the package and are servable, as they are on disk now."""
        found: dict[FileHandle, FileEntry] = {}
        for start in range(0, len(handles), FILES_PER_TURN):
            if start:
                await asyncio.sleep(0)
            batch = handles[start : start + FILES_PER_TURN]
            found |= await self._brought(model, package, partial(self._entries, model, package, batch))
        if len(found) < len(handles):
            self._verify_same()
        return found

    async def has(self, model: ModelId, package: PackageId, handle: FileHandle | None) -> bool:
        """Whether the package is servable and, if a handle is given, lists that file and has it."""
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
        """Open a file safely; None when it does not exist, or exists and the manifest does not list it.

        Raises `Refusal(UNSERVABLE)` when the file is not what the engine would have written.
        """
        opened = await self._brought(model, package, lambda: self._open_file(model, package, handle))
        if opened is None:
            self._verify_same()
        return opened

    def open_file_now(self, model: ModelId, package: PackageId, handle: FileHandle) -> OpenFile | None:
        """Like `open_file` without waiting; None also where it would have to wait."""
        try:
            return self._open_file(model, package, handle)
        except UnreadError:
            return None

    async def raw_packages(self, model: ModelId, bounds: DescriptionBounds) -> RawPackages:
        """The packages of which all files are servable, with their manifests as raw bytes.

        In the order of their ids, until `bounds` are reached. A package that is not servable is left out;
        those for which there is no room are counted in `left_out`.
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
        """The engine's own record of a model, as raw bytes. Raises `Refusal(UNSERVABLE)`."""
        return load_registry_record(self._root, model)

    def has_moved(self) -> bool:
        """Whether a model's directory was added or removed since the last call: one stat."""
        before, self._moved_at = self._moved_at, find_change_time(self._root, MODELS_CACHE)
        return self._moved_at != before

    async def refresh(self, known: Iterable[ModelId]) -> None:
        """Scan the disk again, off the event loop.

        `known` are ids for directories whose manifests name no model.

        One scan at a time. Readers see the previous result until the new one is complete.
        """
        known = frozenset(known)
        async with self._scanning:
            started = self._clock.now()
            survey, folders = await asyncio.to_thread(self._look, known, started)
            seconds = max(0.0, self._clock.now() - started)
            if survey.models == self._state.survey.models:
                # Keep the same object, so that code that derived something from the list sees that it is
                # unchanged.
                survey = replace(survey, models=self._state.survey.models)
            self._folders = folders
            self._state = replace(self._state, survey=survey, seconds=seconds)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run work on manifests in the thread for small ones, beside the event loop."""
        return await self.manifests.in_thread(work)

    def close(self) -> None:
        """Shut the threads down."""
        self.manifests.close()

    def _look(self, known: frozenset[ModelId], now: float) -> tuple[Survey, Folders | None]:
        """Scan, in a thread.

        The directory names of up to a hundred thousand known ids are computed here, once.
        """
        if known != self._known[0]:
            self._known = known, {model_directory(model): model for model in known}
        try:
            folders = read_folders(self._root)  # before the scan: a later change shows as another folder
        except Unavailable:
            folders = None
        return self._scanner.look(self._known[1], now), folders

    def _verify_same(self) -> None:
        """Verify that the cache folders are those of the last scan, before something is reported absent."""
        if self._folders is not None:
            self.verify_readable()
        verify_same(self._root, self._folders)

    async def _brought(self, model: ModelId, package: PackageId, look: Callable[[], T]) -> T:
        """The result of `look`, after the manifest that it needs was read."""
        for _ in range(ATTEMPTS):
            try:
                return look()
            except UnreadError as unread:
                await self.manifests.gather(
                    unread.identity, lambda pause: self._read_manifest(model, package, pause)
                )
        why = f"the manifest of {package} changes faster than it can be read"
        raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)

    def _read_manifest(self, model: ModelId, package: PackageId, pause: Callable[[], None]) -> None:
        """Runs in a thread. It opens the path from the root again, because the waiting caller may be gone."""
        with self._opened(model, package, lambda directory: self.manifests.read(directory, pause)):
            return

    async def _manifest(self, model: ModelId, package: PackageId) -> Manifest | None:
        """The manifest of a servable package, else None."""

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
        """Decided by the manifest alone: the model's names were checked before."""

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
        """The package, open; None when it does not exist. Raises `Refusal` for what is not servable.

        Also raises `UnreadError`, unless another `find_manifest` is given.
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
    """A listed file as it is on disk; None when it is missing or not servable."""
    try:
        stat = package.inspect(artifact)
    except Refusal:
        return None
    if stat is None:
        return None
    return FileEntry(handle=artifact.handle, size=stat.st_size, md5=artifact.blob)
