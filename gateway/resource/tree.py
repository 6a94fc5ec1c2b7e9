"""Open a model's directory below the cache root, and list the packages in it.

    <root>/models-cache/<v2 name>/<package id>/

No descriptor is kept between two calls: each one opens the path from the root again and closes it. That costs
some microseconds. In return a root that is unmounted, replaced or mounted again needs no special case, and we
never keep a volume busy that an operator wants to unmount.

A model's directory is listed at each call, because two packages that differ by case only are not served. So
it may hold `MAX_NAMES` names at most: a directory with a million of them would hold the event loop.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from gateway.model.errors import BadNameError
from gateway.model.names import parse_package_id
from gateway.resource.naming import MODELS_CACHE, model_directory
from gateway.resource.safe_open import each_name_in, opened_cache_folder, opened_directory, opened_root
from gateway.resource.unservable import unservable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.model.names import ModelId, PackageId

MAX_NAMES = 2_048
"""In a model's directory: two for each package, a thousand packages. A model has some twenty in all. Listing
so many takes 3 ms.
"""


class ModelPlace(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A model's directory, open and listable, and the root that it is below."""

    directory: int
    root: int


@contextmanager
def opened_model(root: Path, model: ModelId) -> Iterator[ModelPlace | None]:
    """The directory that the model's id computes to; None when it does not exist."""
    with (
        opened_root(root) as root_descriptor,
        opened_cache_folder(MODELS_CACHE, below=root_descriptor) as models,
        opened_directory(model_directory(model), below=models, is_listable=True) as directory,
    ):
        if directory is None:
            yield None
        else:
            yield ModelPlace(directory=directory, root=root_descriptor)


def find_change_time(root: Path, folder: str) -> tuple[int, int] | None:
    """The folder's inode and change time, which change when a name in it is added or removed."""
    with opened_root(root) as top, opened_cache_folder(folder, below=top) as directory:
        if directory is None:
            return None
        found = os.fstat(directory)
        return found.st_ino, found.st_ctime_ns


def package_names(directory: int) -> tuple[list[PackageId], list[PackageId]]:
    """The package ids in a model's directory, sorted, and those that differ from another only by case.

    The latter are not served: on a volume that ignores case they would be one directory, and it would be
    unclear which of them a rule names. The engine ignores both as well. Locks and temporary files do not have
    a package's name and never appear. Raises `Refusal(UNSERVABLE)` for a directory that holds too many names.
    """
    names = list(islice(each_name_in(directory), MAX_NAMES + 1))
    if len(names) > MAX_NAMES:
        raise unservable(f"the model's directory holds more than {MAX_NAMES} names")
    by_folded: dict[str, list[PackageId]] = {}
    for name in names:
        try:
            package = parse_package_id(name)
        except BadNameError:
            continue
        by_folded.setdefault(package.casefold(), []).append(package)
    clear = [names[0] for names in by_folded.values() if len(names) == 1]
    ambiguous = [name for names in by_folded.values() if len(names) > 1 for name in names]
    return sorted(clear), sorted(ambiguous)
