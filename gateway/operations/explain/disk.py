"""Whether a resource is in the cache as the engine leaves it, and what is there instead.

Asked through the catalogue, as a request would, so that the answer is the one a request would get.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Reason, Refusal, Unavailable
from gateway.model.names import FileHandle
from gateway.resource.naming import model_directory
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from gateway.model.names import Md5, ModelId, PackageId
    from gateway.resource.catalogue import DiskCatalogue

MAX_NAMED = 100  # files of a package

_NO_FILE = FileHandle("no-file-of-any-package")
"""Opened to find what is wrong with a package: its manifest is checked before the file is looked up."""


class DiskState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was found on disk. `directory` is where the model's files would be, below the cache root.

    `reason` is the reason with which a request would be refused; `model` and `md5` are those of a file that
    exists.
    """

    is_there: bool
    found: str
    directory: str = ""
    reason: Reason | None = None
    model: ModelId | None = None
    md5: Md5 | None = None

    def refused(self, reason: Reason, found: str) -> DiskState:
        """The same resource, which exists and is not served for another reason."""
        return replace(self, is_there=False, reason=reason, found=f"{self.found}; {found}")


async def look_at_disk(
    catalogue: DiskCatalogue, model: ModelId | None, package: PackageId | None, file: FileHandle | None
) -> DiskState:
    """Check a file, a package, or any package of the model."""
    if model is None:
        return DiskState(is_there=False, found="not checked: it is not known which model is meant")
    md5: Md5 | None = None
    reason: Reason | None = None
    try:
        if package is None:
            is_there, found = await _look_at_model(catalogue, model)
        elif file is None:
            is_there, found = await _look_at_package(catalogue, model, package)
        else:
            is_there, found, md5 = await _look_at_file(catalogue, model, package, file)
        reason = None if is_there else Reason.ABSENT
    except Refusal as refusal:
        is_there, found, reason = False, f"not as the engine leaves it: {finding_of(refusal)}", refusal.reason
    except Unavailable as failure:
        is_there, found, reason = False, str(failure), failure.reason
    directory = f"models-cache/{model_directory(model)}"
    return DiskState(is_there=is_there, found=found, directory=directory, reason=reason, model=model, md5=md5)


async def _look_at_model(catalogue: DiskCatalogue, model: ModelId) -> tuple[bool, str]:
    packages = await catalogue.packages(model)
    if not packages:
        return False, "no servable package of this model"
    return True, f"packages {' '.join(packages)}"


async def _look_at_package(catalogue: DiskCatalogue, model: ModelId, package: PackageId) -> tuple[bool, str]:
    listing = await catalogue.listing(model, package, limit=MAX_NAMED)
    if listing is None:
        await catalogue.open_file(model, package, _NO_FILE)
        return False, "no such package, or it has no manifest yet"
    more = " and more" if listing.after is not None else ""
    return True, f"{len(listing.files)} servable files: {' '.join(one.handle for one in listing.files)}{more}"


async def _look_at_file(
    catalogue: DiskCatalogue, model: ModelId, package: PackageId, file: FileHandle
) -> tuple[bool, str, Md5 | None]:
    opened = await catalogue.open_file(model, package, file)
    if opened is None:
        return False, "no such file, or the package's manifest does not list it", None
    os.close(opened.descriptor)
    blob = f"blob {opened.md5}" if opened.md5 else "a file of the package's own"
    return True, f"{opened.size} bytes, {blob}", opened.md5
