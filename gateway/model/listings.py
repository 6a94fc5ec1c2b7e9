"""Listings of the catalogue, a model or a package, and what a scan recorded of each package.

A listing grants no access. It shows what the caller may discover; a file that is served because of a scan's
record is checked on disk again.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import msgspec

from gateway.model.hidden_fields import shown

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MARK_DIGITS = 8  # hex digits of a digest that a scan keeps: four bytes, rarely equal for two blobs
SEARCHED_BYTES = 1024  # of marks: up to this size a linear search is faster than bisection


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file that a package's manifest lists and that is on disk as the engine leaves it."""

    handle: FileHandle
    size: int
    md5: Md5 | None  # None: an unhashed artefact, a regular file in the package's own directory


class PackageListing(msgspec.Struct, frozen=True, kw_only=True):
    """A package and its files, in the order of their handles, or one page of them.

    `after` is the start of the next page, None on the last. A listed file that is not on disk as it should be
    is left out, so a page may have fewer files than requested, and still not be the last.
    """

    model: ModelId
    package: PackageId
    files: tuple[FileEntry, ...]
    after: FileHandle | None = None


class ListedPackage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A package as the last scan saw it.

    `marks` are the first four bytes of the digests that its manifest listed, sorted and concatenated. They
    only narrow a search: a package that may list a digest has to be checked, others are skipped.
    """

    model: ModelId
    package: PackageId
    marks: bytes

    def __repr__(self) -> str:
        return shown(self, hidden=("marks",))

    def may_list(self, md5: Md5) -> bool:
        """Whether its manifest may have listed this digest; false only if it did not."""
        mark, marks = bytes.fromhex(md5[:MARK_DIGITS]), self.marks
        if len(marks) <= SEARCHED_BYTES:
            return mark in marks
        at = bisect_left(range(0, len(marks), len(mark)), mark, key=lambda at: marks[at : at + len(mark)])
        return marks[at * len(mark) : (at + 1) * len(mark)] == mark


class ModelListing(msgspec.Struct, frozen=True, kw_only=True):
    """A model and those of its packages that the caller may discover."""

    model: ModelId
    packages: tuple[PackageId, ...]


class CataloguePage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the models that the caller may discover; `after` starts the next page, None on the last."""

    models: tuple[ModelId, ...]
    after: ModelId | None
