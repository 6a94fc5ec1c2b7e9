"""The way from the cache root down to a model's directory, and the packages that it holds.

    <root>/models-cache/<v2 name>/<package id>/

Nothing is kept open between two questions: each one goes down from the root's path again and closes
behind itself. That costs some microseconds, and in return a root that is unmounted, replaced by
another, or comes back needs no case of its own, and we never hold a volume that an operator wants to
take away.

A model's directory is listed at each question, because two packages that differ by case only are nobody's.
So it may hold `MAX_NAMES` names and no more: a directory with a million of them would hold up everybody.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

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
so many takes 3 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """A model's directory, open and listable, and the root that it is below."""

    directory: int
    root: int


@contextmanager
def opened_model(root: Path, model: ModelId) -> Iterator[ModelPlace | None]:
    """The directory that the model's id computes to; None when it is not there."""
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
    """What moves whenever a name below this folder comes or goes: its inode and change time."""
    with opened_root(root) as top, opened_cache_folder(folder, below=top) as directory:
        if directory is None:
            return None
        found = os.fstat(directory)
        return found.st_ino, found.st_ctime_ns


def package_names(directory: int) -> tuple[list[PackageId], list[PackageId]]:
    """The package ids in a model's directory, sorted, and apart from them those that differ only by case.

    The latter are nobody's: on a volume that ignores case they would be one directory, and which of
    them a rule speaks of could not be told. The engine leaves both aside as well. Locks and
    temporary files have no package's name and never appear. Raises `Refusal(UNSERVABLE)` for a directory
    that holds too many names.
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
