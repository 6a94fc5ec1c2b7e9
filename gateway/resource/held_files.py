"""Cache of recently served files, each checked against the disk with `stat` before it is served again.

For small files the content is in memory. For large blobs only their identity is, and the headers of an answer
with them: they are fetched in many range requests, and not each of these has to open the whole path from the
root again; HEAD needs no more than this.

One `stat` decides about the file. It uses the name that the engine gave the file in its package and follows
the link, so it verifies four things at once: the package exists, the file is in it, the link leads to this
blob, and the blob is the inode that was read, with its size and times (I10). If the package or the link is
gone, the link leads elsewhere, or the blob was replaced, truncated or rewritten, the result differs and the
file is located from the root again. Nothing is opened by that name, so a malicious link can only fail to
match; a large blob is opened by its digest, as `safe_open` opens everything, and must be that inode once it
is open.

Where links were written under another path of the root, following them leads nowhere for us. Then the link
and the blob are each checked by their own name: two calls of `stat`.

The package's directory and its manifest are checked as well: the directory may become a link, and the
manifest may stop listing the file. These checks do not notice a directory further up or further down that
became a link, nor another package whose name differs in case only. Therefore every two seconds a file is
located from the root again. A file that changed a moment ago is not cached at all: within one tick of the
file system's clock, a second change could leave the same times. What is cached in memory is what was
measured: a store through a memory mapping may change content and no time.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from hashlib import sha256
from sys import getsizeof
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from gateway.model.clocks import Clock, MonotonicClock
from gateway.model.errors import Refusal, Unavailable
from gateway.model.pins import identity_of
from gateway.model.verdicts import HeldFile, OpenFile
from gateway.resource.disk_checks import CHECK_BYTES, SeenOnDisk, are_reliable, find_identity
from gateway.resource.naming import MANIFEST, MODELS_CACHE, SHARED_BLOBS, model_directory
from gateway.resource.safe_open import open_regular, opened_cache_folder, opened_root

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.header_block import Headers
    from gateway.model.names import FileHandle, Md5, ModelId, PackageId
    from gateway.model.ports import Catalogue
    from gateway.model.stamps import Leaf
    from gateway.resource.disk_checks import PathCheck

    Name = tuple[ModelId, PackageId, FileHandle]

MAX_FILE_BYTES = 64 * 1024  # of content in memory; for larger files sending costs more than locating
HELD_SECONDS = 2.0  # how long a change that no check notices may stay unnoticed
OVERHEAD_BYTES = 1_200  # of an entry beside the file and its strings: measured, rounded up


class Clocks(Clock, MonotonicClock, Protocol):
    """A clock for the time of day, and one that nobody can set."""


class DescribeFile(Protocol):
    """Makes the headers of a plain answer with a file of this size and content."""

    def __call__(self, size: int, sha256: str, *, is_blob: bool) -> Headers:
        """The headers."""


class KeptFile(msgspec.Struct, eq=False):
    """A cached file, the records that its integrity was checked against, and the paths to check."""

    file: OpenFile  # a `HeldFile`, or one that was just opened again
    leaves: tuple[Leaf, ...]
    checks: tuple[PathCheck, ...]
    until: float  # when it has to be located from the root again
    held_bytes: int = 0  # what it was charged


class HeldFiles:
    """The cached files of one worker.

    Not a `BoundedMemory`: whether a file is still what it was is found on disk, by looks that the answers of
    one event loop iteration share, and a second index, by blob, has to lose an entry with the first.
    """

    def __init__(
        self, *, root: Path, catalogue: Catalogue, clock: Clocks, describe: DescribeFile, max_bytes: int
    ) -> None:
        self._root = root
        self._catalogue = catalogue
        self._clock = clock
        self._describe = describe
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[Name, KeptFile] = OrderedDict()
        self._of_blob: dict[tuple[ModelId, PackageId, Md5], FileHandle] = {}  # only of files that are held

    def find(
        self, model: ModelId, package: PackageId, handle: FileHandle, looks: SeenOnDisk | None = None
    ) -> KeptFile | None:
        """The file, if it is cached and unchanged on disk. `looks` were made in this event loop iteration."""
        name = (model, package, handle)
        held = self._held.get(name)
        if held is None:
            return None
        if not self._is_as_it_was(held, looks or SeenOnDisk()):
            self._drop(name)
            return None
        self._held.move_to_end(name)
        return held

    def find_handle(self, model: ModelId, package: PackageId, md5: Md5) -> FileHandle | None:
        """The name of a cached file of this package that links this blob; `find` tells if it still does."""
        return self._of_blob.get((model, package, md5))

    def hold(self, file: OpenFile, leaves: tuple[Leaf, ...]) -> None:
        """Cache a file that was located from the root and whose content is known (its SHA-256 is set)."""
        if file.sha256 is None or (file.md5 is None and file.size > MAX_FILE_BYTES):
            return
        if self.find(file.model, file.package, file.handle) is not None:
            return
        checks = self._checks_for(file)
        if not checks or not are_reliable(checks, self._clock.now()):
            return
        # Located once more, after its stat identities were taken: any later change is noticed by a check.
        content = self._found_again(file)
        if content is None or not _is_what_was_measured(file, content):
            return
        known = HeldFile(
            descriptor=-1,
            size=file.size,
            identity=file.identity,
            model=file.model,
            package=file.package,
            handle=file.handle,
            md5=file.md5,
            sha256=file.sha256,
            content=content if file.size <= MAX_FILE_BYTES else None,
            headers=self._describe(file.size, file.sha256, is_blob=file.md5 is not None),
        )
        self._put(KeptFile(known, leaves, checks, self._clock.monotonic() + HELD_SECONDS))

    def reopen(self, model: ModelId, package: PackageId, handle: FileHandle) -> KeptFile | None:
        """Open a cached blob again; None where it has to be located from the root.

        The caller must close the descriptor.
        """
        held = self.find(model, package, handle)
        return None if held is None else self.open_again(held)

    def open_again(self, held: KeptFile) -> KeptFile | None:
        """As `reopen`, of what was just found."""
        if held.file.md5 is None:
            return None
        with suppress(Refusal, Unavailable):
            with (
                opened_root(self._root) as root,
                opened_cache_folder(SHARED_BLOBS, below=root) as blobs,
            ):
                if blobs is None:
                    return None
                opened = open_regular(held.file.md5, below=blobs, may_have_other_names=True)
            if opened is not None:
                descriptor, found = opened
                if identity_of(found) == held.file.identity:
                    return replace(held, file=_opened_again(held.file, descriptor))
                os.close(descriptor)
        return None

    def _is_as_it_was(self, held: KeptFile, looks: SeenOnDisk) -> bool:
        for leaf in held.leaves:
            if not leaf.is_current:
                return False
        if not looks.agree(held.checks):
            return False
        now = self._clock.monotonic()
        if now >= held.until:
            if self._found_again(held.file) is None:
                return False
            held.until = now + HELD_SECONDS
        return True

    def _found_again(self, file: OpenFile) -> bytes | None:
        """The content (of a large file, empty) of the file located from the root.

        None if it is another file.
        """
        try:
            found = self._catalogue.open_file_now(file.model, file.package, file.handle)
        except (Refusal, Unavailable):
            return None
        if found is None:
            return None
        wanted = file.size if file.size <= MAX_FILE_BYTES else 0
        try:
            if found.identity != file.identity or found.md5 != file.md5:
                return None
            content = os.pread(found.descriptor, wanted, 0)
            is_whole = len(content) == wanted
            return content if is_whole and identity_of(os.fstat(found.descriptor)) == file.identity else None
        except OSError:
            return None
        finally:
            os.close(found.descriptor)

    def _checks_for(self, file: OpenFile) -> tuple[PathCheck, ...]:
        """The paths to check for this file, with their identities; empty when it is no longer on disk."""
        root = str(self._root)
        package = f"{root}/{MODELS_CACHE}/{model_directory(file.model)}/{file.package}"
        place, manifest = f"{package}/{file.handle}", f"{package}/{MANIFEST}"
        of_package, of_manifest, of_place = (
            find_identity(path, follows=False) for path in (package, manifest, place)
        )
        if of_package is None or of_manifest is None or of_place is None:
            return ()
        around: tuple[PathCheck, ...] = ((package, False, of_package), (manifest, False, of_manifest))
        if file.md5 is None:
            return ((place, False, file.identity), *around)
        if find_identity(place, follows=True) == file.identity:
            return ((place, True, file.identity), *around)
        blob = f"{root}/{SHARED_BLOBS}/{file.md5}"
        return ((place, False, of_place), (blob, False, file.identity), *around)

    def _put(self, held: KeptFile) -> None:
        name = (held.file.model, held.file.package, held.file.handle)
        self._drop(name)
        held.held_bytes = _held_bytes(held)
        self._held[name] = held
        if held.file.md5 is not None:
            self._of_blob[held.file.model, held.file.package, held.file.md5] = held.file.handle
        self._bytes += held.held_bytes
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._held)))

    def _drop(self, name: Name) -> None:
        held = self._held.pop(name, None)
        if held is None:
            return
        self._bytes -= held.held_bytes
        if held.file.md5 is not None:
            blob = (held.file.model, held.file.package, held.file.md5)
            if self._of_blob.get(blob) == held.file.handle:
                del self._of_blob[blob]


def _held_bytes(held: KeptFile) -> int:
    """What an entry is charged. All its records have one size: there is one for a blob, or none."""
    checks = sum([CHECK_BYTES + getsizeof(path) for path, _, _ in held.checks])
    records = sum([leaf.held_bytes for leaf in held.leaves])
    return OVERHEAD_BYTES + checks + records + held.file.held_bytes


def _is_what_was_measured(file: OpenFile, content: bytes) -> bool:
    """A large file has no content here to compare."""
    return file.size > MAX_FILE_BYTES or sha256(content).hexdigest() == file.sha256


def _opened_again(file: OpenFile, descriptor: int) -> OpenFile:
    return OpenFile(
        descriptor=descriptor,
        size=file.size,
        identity=file.identity,
        model=file.model,
        package=file.package,
        handle=file.handle,
        md5=file.md5,
        sha256=file.sha256,
    )
