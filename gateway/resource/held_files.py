"""Files that are known, each looked at on disk every time before it is served.

Of small ones the content is in memory. Large blobs are known without it: they are fetched in many
parts, and not each of these has to go all the way down from the root again.

One `stat` decides about the file. It goes by the name that the engine gave it in its package and
follows the link, so it answers four questions at once: the package is there, the file is in it, the
link leads to this blob, and the blob is the inode that was read, with its size and times (I10). A
package that is gone, a link that is gone or leads elsewhere, a blob that was replaced, truncated or
rewritten: each of them gives another answer, and then the file is found the whole way again. Nothing
is opened by that name, so a link that leads astray can only fail to match; a large blob is opened by
its digest, as `safe_open` opens everything, and has to be that inode when it is open.

Where links were written under another name of the root, following them leads nowhere for us. Then
the link itself and the blob are looked at, each by its own name: two looks.

The package's directory and its manifest are looked at as well: the one may become a link, and the
other may list the file no longer. What these looks do not see is a directory further up or further
down that became a link, and another package whose name differs in case only. So every two seconds a
file is found the whole way. One that changed a moment ago is not held at all: within one tick of the
file system's clock, a second change could leave the same times. And what is held in memory is what
was measured: whoever stores through a mapping may change content and no time.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from hashlib import sha256
from sys import getsizeof
from typing import TYPE_CHECKING, Protocol

from gateway.model.errors import Refusal, Unavailable
from gateway.model.pins import identity_of
from gateway.model.ports import Clock, MonotonicClock
from gateway.model.verdicts import HeldFile, OpenFile
from gateway.resource.naming import MANIFEST, MODELS_CACHE, SHARED_BLOBS, model_directory
from gateway.resource.safe_open import open_regular, opened_cache_folder, opened_root

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.facts import Leaf
    from gateway.model.names import FileHandle, ModelId, PackageId
    from gateway.model.pins import StatIdentity
    from gateway.model.ports import Catalogue

    Name = tuple[ModelId, PackageId, FileHandle]
    Look = tuple[str, bool, StatIdentity]  # a path, whether to follow a link there, and what to find

MAX_FILE_BYTES = 64 * 1024  # of content in memory; beyond that, sending it costs more than finding it
HELD_SECONDS = 2.0  # as late as a change that no look sees may be seen anywhere
SETTLED_SECONDS = 2.0  # hundreds of ticks of any file system's clock; FAT, the coarsest, has ticks of 2 s
OVERHEAD_BYTES = 1_000  # of an entry beside the file and its texts: measured, rounded up
LOOK_BYTES = 350  # of one look beside its path


class Clocks(Clock, MonotonicClock, Protocol):
    """One that tells the time and one that nobody can set."""


@dataclass(slots=True)
class Held:
    """A file, the records that its integrity stands on, and what to look at."""

    file: OpenFile  # its descriptor is closed; a `HeldFile` if the content is in memory
    leaves: tuple[Leaf, ...]
    looks: tuple[Look, ...]
    until: float  # when it has to be found the whole way again
    held_bytes: int = 0  # what it was charged


class HeldFiles:
    """The files that a worker knows."""

    def __init__(self, *, root: Path, catalogue: Catalogue, clock: Clocks, max_bytes: int) -> None:
        self._root = root
        self._catalogue = catalogue
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[Name, Held] = OrderedDict()

    def find(self, model: ModelId, package: PackageId, handle: FileHandle) -> Held | None:
        """The file, if it is held and the disk still has it as it was."""
        name = (model, package, handle)
        held = self._held.get(name)
        if held is None:
            return None
        if self._is_as_it_was(held):
            self._held.move_to_end(name)
            return held
        self._drop(name)
        return None

    def hold(self, file: OpenFile, leaves: tuple[Leaf, ...]) -> None:
        """Hold a file that was found the whole way, whose content is known (its SHA-256 is set)."""
        if file.sha256 is None or (file.md5 is None and file.size > MAX_FILE_BYTES):
            return
        if self.find(file.model, file.package, file.handle) is not None:
            return
        looks = self._looks_at(file)
        if not looks or not self._is_settled(looks):
            return
        # Found once more, now that it was looked at: whatever changes from here on, a look will see.
        content = self._found_again(file)
        if content is None or not _is_what_was_measured(file, content):
            return
        known: OpenFile = replace(file, descriptor=-1)
        if file.size <= MAX_FILE_BYTES:
            fields = {field.name: getattr(known, field.name) for field in dataclass_fields(OpenFile)}
            known = HeldFile(**fields, content=content)
        self._put(Held(known, leaves, looks, self._clock.monotonic() + HELD_SECONDS))

    def reopen(self, model: ModelId, package: PackageId, handle: FileHandle) -> Held | None:
        """A blob that is known, opened anew; None where it has to be found the whole way.

        Whoever receives its descriptor closes it.
        """
        held = self.find(model, package, handle)
        if held is None or held.file.md5 is None or isinstance(held.file, HeldFile):
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
                    return replace(held, file=replace(held.file, descriptor=descriptor))
                os.close(descriptor)
        return None

    def _is_as_it_was(self, held: Held) -> bool:
        for leaf in held.leaves:
            if not leaf.is_current:
                return False
        try:
            for path, follows, identity in held.looks:
                if _identity_at(path, follows=follows) != identity:
                    return False
        except OSError:
            return False
        now = self._clock.monotonic()
        if now >= held.until:
            if self._found_again(held.file) is None:
                return False
            held.until = now + HELD_SECONDS
        return True

    def _found_again(self, file: OpenFile) -> bytes | None:
        """The content (of a large file, none) of what is found the whole way; None if it is another file."""
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

    def _looks_at(self, file: OpenFile) -> tuple[Look, ...]:
        """What to look at for this file; nothing when the disk has it no longer."""
        root = str(self._root)
        package = f"{root}/{MODELS_CACHE}/{model_directory(file.model)}/{file.package}"
        place, manifest = f"{package}/{file.handle}", f"{package}/{MANIFEST}"
        try:
            around: tuple[Look, ...] = tuple(
                (path, False, _identity_at(path, follows=False)) for path in (package, manifest)
            )
            if file.md5 is None:
                return ((place, False, file.identity), *around)
            link = _identity_at(place, follows=False)
            if _leads_to(place, file.identity):
                return ((place, True, file.identity), *around)
        except OSError:
            return ()
        blob = f"{root}/{SHARED_BLOBS}/{file.md5}"
        return ((place, False, link), (blob, False, file.identity), *around)

    def _is_settled(self, looks: tuple[Look, ...]) -> bool:
        latest = (self._clock.now() - SETTLED_SECONDS) * 1e9
        # By the change time alone, which every change moves and nobody can set: an mtime may be any date.
        return all(identity[4] < latest for _, _, identity in looks)

    def _put(self, held: Held) -> None:
        name = (held.file.model, held.file.package, held.file.handle)
        self._drop(name)
        held.held_bytes = _held_bytes(held)
        self._held[name] = held
        self._bytes += held.held_bytes
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._held)))

    def _drop(self, name: Name) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            self._bytes -= held.held_bytes


def _held_bytes(held: Held) -> int:
    """What an entry holds. Its records are few and of one size: one of a blob, if any."""
    looks = sum([LOOK_BYTES + getsizeof(path) for path, _, _ in held.looks])
    records = sum([leaf.held_bytes for leaf in held.leaves])
    return OVERHEAD_BYTES + looks + records + held.file.held_bytes


def _is_what_was_measured(file: OpenFile, content: bytes) -> bool:
    """Of a large file there is no content here to compare."""
    return file.size > MAX_FILE_BYTES or sha256(content).hexdigest() == file.sha256


def _identity_at(path: str, *, follows: bool) -> StatIdentity:
    return identity_of(os.stat(path, follow_symlinks=follows))  # noqa: PTH116 -- a Path would cost as much again


def _leads_to(place: str, identity: StatIdentity) -> bool:
    try:
        return _identity_at(place, follows=True) == identity
    except OSError:
        return False
