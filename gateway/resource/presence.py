"""Detect whether the cache is mounted: an empty cache and a volume that is not mounted look alike.

An empty list is an answer: a client that mirrors the cache deletes what is not in it. So it is given only
where the cache is known to be present and empty. A root that does not exist, is no directory or may not be
entered is no cache; the request gets 503 (`safe_open.opened_root`). What remains is a root that exists and
holds nothing: a fresh cache, whose folders the engine makes at its first load, or the mount point of a volume
that is not mounted.

The two are distinguished by what this node saw before, which a small file of the state folder records
(`SeenCache`). A node that never saw a model below this root treats an empty one as a fresh cache. A node that
did refuses to answer

* when `models-cache` is gone: the engine never removes it;
* when there are no models, in a root with another device or inode than the one that had models;
* when `shared-blobs` is gone, or is another folder than before and empty.

An operator who emptied the cache on purpose leaves an empty `models-cache`, or removes that file.

Between two scans the folders may change as well. Before something is reported absent, they are checked again:
if one is not the folder of the last scan, the answer is `Unavailable` until the next scan (`verify_same`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import Reason, Unavailable
from gateway.model.presence import Seen
from gateway.resource.naming import MODELS_CACHE, SHARED_BLOBS
from gateway.resource.safe_open import each_name_in, opened_cache_folder, opened_root
from gateway.resource.unservable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.model.presence import Place, SeenCache


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """The identities of the root and of the engine's folders in it; None for a folder that does not exist."""

    root: Place
    models: Place | None
    blobs: Place | None


def read_folders(root: Path) -> Folders:
    """The folders now. Raises `Unavailable` without a root, and where one of them is something else."""
    with (
        opened_root(root) as top,
        opened_cache_folder(MODELS_CACHE, below=top) as models,
        opened_cache_folder(SHARED_BLOBS, below=top) as blobs,
    ):
        return Folders(
            root=_place_of(top),
            models=None if models is None else _place_of(models),
            blobs=None if blobs is None else _place_of(blobs),
        )


def find_absence(root: Path, folders: Folders, *, has_models: bool, cache: SeenCache) -> str | None:
    """Why this is not the cache that was seen here before; None when it may be."""
    seen = cache.load()
    if seen is None or seen.path != str(root):
        return None
    if folders.models is None:
        return _not_mounted(root, f"there is no {MODELS_CACHE}", cache)
    if not has_models and folders.root != seen.root:
        return _not_mounted(root, "it is another folder than the one with models, and has none", cache)
    if seen.blobs is not None and folders.blobs != seen.blobs and not _has_blobs(root):
        return _not_mounted(
            root, f"{SHARED_BLOBS} is gone, or is another folder than before and empty", cache
        )
    return None


def note_presence(root: Path, folders: Folders, cache: SeenCache) -> None:
    """Record where models were seen."""
    cache.note(Seen(path=str(root), root=folders.root, blobs=folders.blobs))


def verify_same(root: Path, before: Folders | None) -> None:
    """Raises `Unavailable` unless the folders are those of the last scan: missing files may come back soon.

    A folder that was added since is accepted.
    """
    now = read_folders(root)
    if before is None:
        return
    pairs = ((before.root, now.root), (before.models, now.models), (before.blobs, now.blobs))
    if any(was is not None and was != here for was, here in pairs):
        why = f"a folder of the cache root {printable(str(root))} is another one than at the last scan"
        raise Unavailable("cache", why, Reason.CACHE_UNAVAILABLE)


def _has_blobs(root: Path) -> bool:
    with (
        opened_root(root) as top,
        opened_cache_folder(SHARED_BLOBS, below=top, is_listable=True) as blobs,
    ):
        return blobs is not None and next(each_name_in(blobs), None) is not None


def _place_of(directory: int) -> Place:
    found = os.fstat(directory)
    return found.st_dev, found.st_ino


def _not_mounted(root: Path, finding: str, cache: SeenCache) -> str:
    return (
        f"the cache root {printable(str(root))} had models, and now {finding}: is its volume mounted? "
        f"If it was emptied on purpose, remove {printable(cache.where)}"
    )
