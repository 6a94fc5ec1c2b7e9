"""Listings: what a model, a package or the catalogue is said to hold, and what a scan noted of it.

None of them opens anything. What is shown is what the caller may discover; what is served because of
a note is looked at on disk once more, for itself.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId

MARK_DIGITS = 8  # hex digits of a digest that a scan keeps: four bytes, which no two of a cache often share
SEARCHED_BYTES = 1024  # of marks: up to here, looking through all is faster than halving


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file that a package's manifest lists and that lies on disk as the engine leaves it."""

    handle: FileHandle
    size: int
    md5: Md5 | None  # None: an unhashed artefact, a regular file in the package's own directory


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageListing:
    """A package and its files, in the order of their handles, or one page of them.

    `after` starts the next page, None ends. A file that is listed and is not on disk as it should be is left
    out, so a page may have fewer files than were asked for, and still not be the last.
    """

    model: ModelId
    package: PackageId
    files: tuple[FileEntry, ...]
    after: FileHandle | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPackage:
    """A package as the last scan saw it.

    `marks` are the beginnings of the digests that its manifest listed, sorted, one after the other. They only
    narrow: what may list a digest has to be looked at, and what does not list it is spared that.
    """

    model: ModelId
    package: PackageId
    marks: bytes = field(repr=False)

    def may_list(self, md5: Md5) -> bool:
        """Whether its manifest may have listed this digest; false only when it did not."""
        mark, marks = bytes.fromhex(md5[:MARK_DIGITS]), self.marks
        if len(marks) <= SEARCHED_BYTES:
            return mark in marks
        at = bisect_left(range(0, len(marks), len(mark)), mark, key=lambda at: marks[at : at + len(mark)])
        return marks[at * len(mark) : (at + 1) * len(mark)] == mark


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelListing:
    """A model and those of its packages that the caller may discover."""

    model: ModelId
    packages: tuple[PackageId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CataloguePage:
    """One page of the models that the caller may discover; `after` starts the next, None ends."""

    models: tuple[ModelId, ...]
    after: ModelId | None
