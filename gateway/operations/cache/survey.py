"""Walk through the cache for facts that serving does not need: who wrote it, and under which roots.

The walk opens directories by descriptor and follows no link. It takes names and link texts only, made
printable, since anyone who can write there chose them. It is bounded, because a volume may hold millions of
files and the first ten thousand links are representative: in the links that it counts, in the names that it
reads, and in depth, which is the depth of the deepest servable file.

`survey_blobs` opens each blob as hashing it would, and reports what is wrong with it.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.model.errors import BadNameError, CachegateError, Refusal
from gateway.model.names import MAX_NAME_SEGMENTS, parse_md5
from gateway.pinning.agreeing import why
from gateway.pinning.ahead import MAX_AHEAD_BYTES
from gateway.resource.naming import MANIFEST, MODELS_CACHE, SHARED_BLOBS, is_v2_directory
from gateway.resource.safe_open import (
    each_name_in,
    open_regular,
    opened_cache_folder,
    opened_directory,
    opened_root,
)
from gateway.resource.tree import package_names
from gateway.resource.unservable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINKS = 10_000
MAX_NAMES = 1_000_000  # some seconds
MAX_DEPTH = 2 + MAX_NAME_SEGMENTS  # model, package, and the folders of a file
MAX_BLOBS = 100_000  # each opened, a second for all
MAX_TOLD = 100  # blobs whose problem is reported
RESOLUTIONS = "auto-resolution-cache"


@dataclass(slots=True)
class CacheSurvey:
    """What was found. `link_roots` counts links to blobs by the root that their text names."""

    manifests: int = 0
    manifest_owners: set[str] = field(default_factory=set)
    link_roots: Counter[str] = field(default_factory=Counter)
    old_directories: set[str] = field(default_factory=set)
    ambiguous_packages: set[str] = field(default_factory=set)
    names: int = 0
    blobs: int = 0
    bad_blobs: dict[str, str] = field(default_factory=dict)  # what is wrong with each


def survey_cache(root: Path) -> CacheSurvey:
    """Walk through `models-cache`. What cannot be entered is left out; the scan reports it."""
    seen = CacheSurvey()
    with (
        opened_root(root) as root_descriptor,
        opened_cache_folder(MODELS_CACHE, below=root_descriptor, is_listable=True) as models,
    ):
        if models is not None:
            _walk(seen, models)
    _survey_blobs(seen, root)
    return seen


def _walk(seen: CacheSurvey, models: int) -> None:
    for folder, folders, files, descriptor in os.fwalk(".", dir_fd=models):
        depth = len(Path(folder).parts)
        seen.names += len(folders) + len(files)
        if depth == 0:
            seen.old_directories.update(_old_names(folders))
            folders[:] = [name for name in folders if is_v2_directory(name)]
        elif depth == 1:
            with suppress(Refusal):  # too many names: the scan reports it
                _, ambiguous = package_names(descriptor)
                seen.ambiguous_packages.update(f"{Path(folder).name}/{name}" for name in ambiguous)
        else:
            _take_in(seen, [*folders, *files], descriptor)
        if depth >= MAX_DEPTH:
            folders.clear()
        if seen.link_roots.total() >= MAX_LINKS or seen.names >= MAX_NAMES:
            break


def _survey_blobs(seen: CacheSurvey, root: Path) -> None:
    with (
        opened_root(root) as root_descriptor,
        opened_cache_folder(SHARED_BLOBS, below=root_descriptor, is_listable=True) as blobs,
    ):
        if blobs is None:
            return
        for name in each_name_in(blobs):
            with suppress(BadNameError):  # a lock, or a download that is not finished
                parse_md5(name)
                seen.blobs += 1
                problem = _find_problem(name, blobs)
                if problem is not None:
                    seen.bad_blobs[name] = problem
            if seen.blobs >= MAX_BLOBS or len(seen.bad_blobs) >= MAX_TOLD:
                break


def _find_problem(name: str, blobs: int) -> str | None:
    """What keeps a blob from being hashed and served; None when nothing does."""
    try:
        opened = open_regular(name, below=blobs, may_have_other_names=True)
        if opened is None:
            return None  # it was removed meanwhile
        descriptor, found = opened
        try:
            os.pread(descriptor, 1, 0)
        finally:
            os.close(descriptor)
    except (CachegateError, OSError) as trouble:
        return why(trouble)
    if found.st_size > MAX_AHEAD_BYTES:
        return f"it is larger than {MAX_AHEAD_BYTES} bytes: it is not hashed ahead"
    return None


def find_fresh_resolutions(root: Path, since: float) -> int:
    """How many auto-resolution entries were written since then."""
    with (
        opened_root(root) as root_descriptor,
        opened_directory(RESOLUTIONS, below=root_descriptor, is_listable=True) as directory,
    ):
        if directory is None:
            return 0
        names = islice(each_name_in(directory), MAX_NAMES)
        return sum(_written_at(name, directory) >= since for name in names if name.endswith(".json"))


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
            continue  # it was removed meanwhile


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
