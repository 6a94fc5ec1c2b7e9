"""List every file of the cache for a command: blobs from their folder, package files from the manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.components import build_catalogue
from gateway.model.errors import Conflict
from gateway.resource.blobs import blobs_below, open_blob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from gateway.model.errors import Refusal
    from gateway.model.listings import PackageListing
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue


class CacheFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file. A blob is named by its digest; a package file by model, package and handle."""

    size: int
    blob: Md5 | None = None
    package_file: tuple[ModelId, PackageId, FileHandle] | None = None

    def __str__(self) -> str:
        return self.blob or " ".join(self.package_file or ())


async def each_listing(catalogue: DiskCatalogue) -> AsyncIterator[PackageListing]:
    """All servable packages with their files, model by model. Raises `Unavailable` without a cache."""
    for model in catalogue.models():
        for package in await catalogue.packages(model):
            listing = await catalogue.listing(model, package)
            if listing is not None:
                yield listing


async def each_file(
    root: Path, catalogue: DiskCatalogue, on_refused: Callable[[Md5, Refusal], None]
) -> AsyncIterator[CacheFile]:
    """All blobs, linked or not, and all package files. Raises `Unavailable` as `each_listing` does.

    `on_refused` is called for a name of a blob that is no regular file.
    """
    catalogue.verify_readable()
    for md5, identity in blobs_below(root, on_refused):
        yield CacheFile(size=identity[2], blob=md5)
    async for listing in each_listing(catalogue):
        for file in listing.files:
            if file.md5 is None:
                place = (listing.model, listing.package, file.handle)
                yield CacheFile(size=file.size, package_file=place)


async def load_listed_digests(session: OperatorSession, model: ModelId) -> frozenset[Md5]:
    """The digests of a model's servable links, as they are on disk now. Raises `Conflict` without any."""
    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    listings = [await catalogue.listing(model, package) for package in await catalogue.packages(model)]
    found = frozenset(
        file.md5
        for listing in listings
        if listing is not None
        for file in listing.files
        if file.md5 is not None
    )
    if not found:
        raise Conflict(
            f"the cache has no package of {model} that links a blob; name digests, or load it first"
        )
    return found


def find_descriptor(root: Path, catalogue: DiskCatalogue, file: CacheFile) -> int | None:
    """Open a file; None when it is gone. The caller must close the descriptor.

    Raises `Refusal` for what is no longer what it was.
    """
    if file.blob is not None:
        return open_blob(root, file.blob)
    if file.package_file is not None:
        opened = catalogue.open_file_now(*file.package_file)
        return None if opened is None else opened.descriptor
    return None
