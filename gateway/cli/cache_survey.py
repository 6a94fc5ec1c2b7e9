"""A walk through the cache that asks what serving does not: who wrote it, and under which names.

It goes down by descriptors and follows no link; names and the texts of links are all it takes, made
printable, since anybody who can write there chose them. It is bounded, because a volume may hold
millions of files and the first ten thousand links say what all of them do.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.resource.naming import MANIFEST, MODELS_CACHE, SHARED_BLOBS, is_v2_directory
from gateway.resource.safe_open import names_in, opened_directory, opened_root
from gateway.resource.tree import package_names
from gateway.resource.unservable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINKS = 10_000
RESOLUTIONS = "auto-resolution-cache"


@dataclass(slots=True)
class CacheSurvey:
    """What was seen. `link_roots` counts links to blobs by the root that their text names."""

    manifests: int = 0
    manifest_owners: set[str] = field(default_factory=set)
    link_roots: Counter[str] = field(default_factory=Counter)
    old_directories: set[str] = field(default_factory=set)
    ambiguous_packages: set[str] = field(default_factory=set)


def survey_cache(root: Path) -> CacheSurvey:
    """Walk through `models-cache`. What cannot be entered is left out; the scan reports it."""
    seen = CacheSurvey()
    with (
        opened_root(root) as root_descriptor,
        opened_directory(MODELS_CACHE, below=root_descriptor, is_listable=True) as models,
    ):
        if models is None:
            return seen
        for folder, folders, files, descriptor in os.fwalk(".", dir_fd=models):
            depth = len(Path(folder).parts)
            if depth == 0:
                seen.old_directories.update(_old_names(folders))
                folders[:] = [name for name in folders if is_v2_directory(name)]
            elif depth == 1:
                _, ambiguous = package_names(descriptor)
                seen.ambiguous_packages.update(f"{Path(folder).name}/{name}" for name in ambiguous)
            else:
                _take_in(seen, [*folders, *files], descriptor)
            if seen.link_roots.total() >= MAX_LINKS:
                break
    return seen


def find_fresh_resolutions(root: Path, since: float) -> int:
    """How many auto-resolution entries were written since then."""
    with (
        opened_root(root) as root_descriptor,
        opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
    ):
        if directory is None:
            return 0
        names = [name for name in names_in(directory) if name.endswith(".json")]
        return sum(_written_at(name, directory) >= since for name in names)


def _old_names(names: Iterable[str]) -> set[str]:
    return {printable(name) for name in names if not is_v2_directory(name) and not name.startswith(".")}


def _take_in(seen: CacheSurvey, names: Iterable[str], directory: int) -> None:
    for name in names:
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink(name, dir_fd=directory)
                root, is_blob, _ = target.rpartition(f"/{SHARED_BLOBS}/")
                if is_blob:
                    seen.link_roots[printable(root)] += 1
            elif name == MANIFEST:
                seen.manifests += 1
                seen.manifest_owners.add(_user_name(found.st_uid))
        except OSError:
            continue  # it went away while we looked


def _written_at(name: str, directory: int) -> float:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime
    except OSError:
        return float("-inf")


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
