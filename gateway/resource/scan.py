"""Scan the cache: which models are on disk, if their ids can be determined, and what is wrong with the rest.

A directory's name does not tell its model's id. The id is known when one of the ids in the facts computes to
that name, or when a manifest inside claims an id that does. Either way the forward rule decides; a directory
for which neither holds is reported and not guessed.

The scan only provides the list of models and reports. What is served is checked on disk at that moment, so a
scan that is old, or that saw half of a change, can show a model that is gone but cannot open anything.

Each directory is checked on its own (`survey_directory`); the result depends only on its content and the
known ids. So a running gateway checks again only what changed (`scanner.py`), and a command checks everything
once. Any failure in one directory is reported as that directory's.

Anyone who can write to the volume can make any number of names, so the result is bounded: directories, the
packages of each, and the reports about skipped ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Refusal, Unavailable
from gateway.model.hidden_fields import shown
from gateway.model.listings import ListedPackage
from gateway.model.names import MAX_NAME_BYTES, MAX_NAME_SEGMENTS
from gateway.model.pins import identity_of
from gateway.model.presence import NothingSeen
from gateway.resource.listed import marks_of
from gateway.resource.manifests import INLINE_BYTES, RELIABLE_AFTER_SECONDS
from gateway.resource.naming import MANIFEST, MODELS_CACHE, is_v2_directory, model_directory
from gateway.resource.presence import find_absence, read_folders
from gateway.resource.safe_open import (
    each_name_in,
    inspect_regular,
    opened_cache_folder,
    opened_directory,
    opened_root,
)
from gateway.resource.slices import no_pause
from gateway.resource.tree import package_names
from gateway.resource.unservable import finding_of, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from gateway.model.names import ModelId, PackageId
    from gateway.model.pins import StatIdentity
    from gateway.model.presence import SeenCache
    from gateway.resource.manifests import Manifests

MAX_DIRECTORIES = 200_000  # below `models-cache`, each 0.4 kB of memory: twice the most ever measured
OLD_NAMING = "not a directory of the engine's present naming"
MAX_REPORTED_OF_ONE = 10  # of one directory: its problems must not fill the report
MAX_REPORTED = 100  # a broken volume has one cause and a million symptoms; people read the report


class Skipped(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something below `models-cache` that is not served, and why. `where` is safe to print."""

    where: str
    why: str


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one scan: the models, sorted, and the report about everything else."""

    models: tuple[ModelId, ...] = ()
    listed: Sequence[ListedPackage] = ()
    is_root_present: bool = False
    is_readable: bool = False
    problem: str | None = None  # why the scan failed; None when it completed
    packages: int = 0
    unservable_packages: int = 0  # with a manifest or a directory that the engine would not have left
    unreadable_manifests: int = 0  # those of them that the gateway's user may not read: wrong permissions
    unservable_files: int = 0  # of servable packages: their handles are longer than any name may be
    skipped_total: int = 0
    skipped: tuple[Skipped, ...] = ()  # the first of them


class Gist(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan keeps of a manifest, which is not read again while its file's identity is the same."""

    identity: StatIdentity
    canonical_model_id: ModelId | None
    cache_model_id: ModelId | None
    marks: bytes
    too_long: int

    def __repr__(self) -> str:
        return shown(self, hidden=("marks",))

    def is_of(self, model: ModelId) -> bool:
        """Whether nothing in it contradicts that the package belongs to this model."""
        return self.canonical_model_id in {None, model} and self.cache_model_id in {None, model}


class DirectorySurvey(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one directory below `models-cache`. `model` is set when it has a servable package."""

    model: ModelId | None = None
    is_by_fact: bool = False  # no manifest names the model: it is known only while a fact names it
    is_nameless: bool = False  # there is a servable manifest, and nothing names its model
    is_undecided: bool = False  # the disk or the machine failed: the previous result stays in force
    listed: tuple[ListedPackage, ...] = ()  # its servable packages, by name
    gists: Mapping[PackageId, Gist] = msgspec.field(default_factory=dict)  # of large manifests, to be reused
    unservable_packages: int = 0
    unreadable_manifests: int = 0
    unservable_files: int = 0
    skipped_total: int = 0
    skipped: tuple[Skipped, ...] = ()


@dataclass(slots=True)
class _Tally:
    """The counts of the directory that is being checked."""

    unservable_packages: int = 0
    unreadable_manifests: int = 0
    unservable_files: int = 0
    skipped_total: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    is_undecided: bool = False

    def skip(self, where: str, why: str) -> None:
        self.skipped_total += 1
        if len(self.skipped) < MAX_REPORTED_OF_ONE:
            self.skipped.append(Skipped(where=printable(where), why=why))


class Looking(msgspec.Struct, frozen=True, kw_only=True):
    """The context of a scan: the manifest cache, the time, and the pause between slices of work."""

    manifests: Manifests
    now: float
    pause: Callable[[], None] = no_pause


def scan(root: Path, known: Mapping[str, ModelId], looking: Looking, seen: SeenCache | None = None) -> Survey:
    """Scan the whole cache. `known` maps directory names to the ids that compute to them.

    Never raises for what is on disk: whatever cannot be read is in the report.
    """
    try:
        folders = read_folders(root)
        with (
            opened_root(root) as root_descriptor,
            opened_cache_folder(MODELS_CACHE, below=root_descriptor, is_listable=True) as directory,
        ):
            names = [] if directory is None else list(islice(each_name_in(directory), MAX_DIRECTORIES))
            surveys = [
                survey_directory(name, below=directory, known=known.get(name), looking=looking)
                for name in sorted(names)
            ]
        has_models = any(one.model is not None for one in surveys)
        problem = find_absence(root, folders, has_models=has_models, cache=seen or NothingSeen())
    except (Refusal, Unavailable) as error:
        return unreadable(error)
    if problem is not None:
        return Survey(is_root_present=True, problem=problem)
    return judged(
        Survey(
            models=tuple(sorted(one.model for one in surveys if one.model is not None)),
            listed=tuple(sorted((listed for one in surveys for listed in one.listed), key=_by_name)),
            is_root_present=True,
            is_readable=True,
            packages=sum(len(one.listed) for one in surveys),
            unservable_packages=sum(one.unservable_packages for one in surveys),
            unreadable_manifests=sum(one.unreadable_manifests for one in surveys),
            unservable_files=sum(one.unservable_files for one in surveys),
            skipped_total=sum(one.skipped_total for one in surveys),
            skipped=tuple(skipped for one in surveys for skipped in one.skipped)[:MAX_REPORTED],
        )
    )


def unreadable(error: Refusal | Unavailable) -> Survey:
    """The survey of a cache that cannot be read."""
    why = error.why if isinstance(error, Unavailable) else finding_of(error)
    return Survey(is_root_present=not isinstance(error.__cause__, FileNotFoundError), problem=why)


def judged(survey: Survey) -> Survey:
    """The survey; marked unreadable if there are manifests and none of them may be read.

    A change of mode or user that hides all manifests must not look like a cache that was emptied.
    """
    if survey.packages or not survey.unreadable_manifests:
        return survey
    return replace(survey, is_readable=False, problem="no manifest can be read by the gateway's user")


def survey_directory(
    name: str,
    *,
    below: int | None,
    known: ModelId | None,
    looking: Looking,
    before: Mapping[PackageId, Gist] | None = None,
) -> DirectorySurvey:
    """Check one directory. `known` is the id in the facts that computes to its name.

    `before` is what was kept of its large manifests.
    """
    tally = _Tally()
    if not is_v2_directory(name):
        tally.skip(name, OLD_NAMING)
        return _result(tally)
    gists = _load_gists(name, below, before or {}, looking, tally)
    claimed = _claimed_model(name, gists)
    model = known or claimed
    if model is None:
        if gists:
            tally.skip(name, "no fact and no manifest names the model whose directory this is")
        return _result(tally, is_nameless=bool(gists))
    foreign = [package for package, gist in gists.items() if not gist.is_of(model)]
    for package in foreign:
        tally.skip(f"{name}/{package}", "the manifest names another model")
    for package, gist in gists.items():
        if gist.too_long and package not in foreign:
            tally.unservable_files += gist.too_long
            tally.skip(f"{name}/{package}", _too_long(gist.too_long))
    listed = tuple(
        ListedPackage(model=model, package=package, marks=gists[package].marks)
        for package in sorted(gists)
        if package not in foreign
    )
    return _result(
        tally,
        model=model if listed else None,
        is_by_fact=claimed is None,
        listed=listed,
        gists={package: gist for package, gist in gists.items() if _is_worth_keeping(gist, looking.now)},
    )


def _by_name(listed: ListedPackage) -> tuple[ModelId, PackageId]:
    return listed.model, listed.package


def _too_long(files: int) -> str:
    return (
        f"{files} of its files are not served: the handle has more than {MAX_NAME_SEGMENTS} segments "
        f"or {MAX_NAME_BYTES} bytes"
    )


def _is_worth_keeping(gist: Gist, now: float) -> bool:
    """Whether it is of a large manifest whose times are old enough to be reliable."""
    return gist.identity[2] > INLINE_BYTES and gist.identity[4] < (now - RELIABLE_AFTER_SECONDS) * 1e9


def _result(tally: _Tally, **found: Any) -> DirectorySurvey:
    return DirectorySurvey(
        unservable_packages=tally.unservable_packages,
        unreadable_manifests=tally.unreadable_manifests,
        unservable_files=tally.unservable_files,
        skipped_total=tally.skipped_total,
        skipped=tuple(tally.skipped),
        is_undecided=tally.is_undecided,
        **found,
    )


def _load_gists(
    name: str, below: int | None, before: Mapping[PackageId, Gist], looking: Looking, tally: _Tally
) -> dict[PackageId, Gist]:
    gists: dict[PackageId, Gist] = {}
    try:
        with opened_directory(name, below=below, is_listable=True) as directory:
            clear, ambiguous = ([], []) if directory is None else package_names(directory)
            for package in ambiguous:
                tally.skip(f"{name}/{package}", "another package differs from it only by case")
            for package in clear:
                where = f"{name}/{package}"
                try:
                    gist = _find_gist(package, directory, before.get(package), looking)
                except (Refusal, Unavailable) as error:
                    tally.unservable_packages += 1
                    tally.unreadable_manifests += isinstance(error.__cause__, PermissionError)
                    tally.is_undecided |= isinstance(error, Unavailable)
                    tally.skip(where, finding_of(error))
                else:
                    if gist is None:
                        tally.skip(where, "no manifest: not finished yet, or left half-written")
                    else:
                        gists[package] = gist
    except (Refusal, Unavailable) as error:
        tally.is_undecided |= isinstance(error, Unavailable)
        tally.skip(name, finding_of(error))
    except Exception as defect:  # noqa: BLE001 -- a boundary: go on with the other directories
        tally.is_undecided = True
        tally.skip(name, f"it could not be looked at ({type(defect).__name__}: {printable(str(defect))})")
    return gists


def _find_gist(package: PackageId, below: int | None, before: Gist | None, looking: Looking) -> Gist | None:
    """What is kept of the package's manifest; None when it has none yet."""
    with opened_directory(package, below=below) as directory:
        if directory is None:
            return None
        found = inspect_regular(MANIFEST, below=directory, may_have_other_names=True)
        if found is None:
            return None
        identity = identity_of(found)  # if another file is read below, this identity does not occur again
        if before is not None and before.identity == identity:
            return before
        manifest = looking.manifests.read_in_passing(directory, looking.pause)
    if manifest is None:
        return None
    return Gist(
        identity=identity,
        canonical_model_id=manifest.canonical_model_id,
        cache_model_id=manifest.cache_model_id,
        marks=marks_of(manifest),
        too_long=manifest.too_long,
    )


def _claimed_model(name: str, gists: Mapping[PackageId, Gist]) -> ModelId | None:
    """The id that a manifest claims, if it computes to this very directory."""
    for gist in gists.values():
        claimed_id = gist.canonical_model_id
        if claimed_id is not None and model_directory(claimed_id) == name:
            return claimed_id
    return None
