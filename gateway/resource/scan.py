"""The scan: which models are on disk, as far as their ids can be known, and what is wrong with the rest.

A directory's name does not tell its model's id. The id is known when one of the ids that facts speak
of computes to that name, or when a manifest inside claims one that does. Either way the forward rule
has the last word; a directory for which neither holds is nobody's and is reported, not guessed.

The scan only feeds the list of models and reports. What is served is looked at on disk at that
moment, so a scan that is old, or that saw half of a change, can show a model that is gone and can
open nothing.

Each directory is judged on its own (`survey_directory`) and depends on nothing but its content and
the known ids. So a gateway that runs looks again only where something moved (`scanner.py`); a command
looks at everything once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.model.errors import Refusal, Unavailable
from gateway.model.names import MAX_NAME_BYTES, MAX_NAME_SEGMENTS
from gateway.resource.listed import list_package
from gateway.resource.naming import MODELS_CACHE, is_v2_directory, model_directory
from gateway.resource.package import opened_package
from gateway.resource.safe_open import names_in, opened_directory, opened_root
from gateway.resource.tree import package_names
from gateway.resource.unservable import finding_of, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gateway.model.listings import ListedPackage
    from gateway.model.names import ModelId, PackageId
    from gateway.resource.manifest import Manifest

NO_ROOT = "the cache root does not exist"
MAX_REPORTED = 100  # a broken volume has one cause and a million symptoms; a report is read by people


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Something below `models-cache` that is not served, and why. `where` is safe to print."""

    where: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What one scan found: the models, sorted, and the report about everything else."""

    models: tuple[ModelId, ...] = ()
    listed: Sequence[ListedPackage] = ()
    is_root_present: bool = False
    is_readable: bool = False
    problem: str | None = None  # why nothing could be looked at; None when the scan went through
    packages: int = 0
    unservable_packages: int = 0  # with a manifest or a directory that the engine would not have left
    unreadable_manifests: int = 0  # those of them that the gateway's user may not read: a wrong set-up
    unservable_files: int = 0  # of servable packages: their handles are longer than any name may be
    skipped_total: int = 0
    skipped: tuple[Skipped, ...] = ()  # the first of them


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySurvey:
    """What one directory below `models-cache` came to. `model` is set when it has a servable package."""

    model: ModelId | None = None
    is_by_fact: bool = False  # no manifest names the model: it is known as long as a fact names it
    is_nameless: bool = False  # there is a servable manifest, and nothing says whose
    listed: tuple[ListedPackage, ...] = ()  # its servable packages, by name
    unservable_packages: int = 0
    unreadable_manifests: int = 0
    unservable_files: int = 0
    skipped_total: int = 0
    skipped: tuple[Skipped, ...] = ()


@dataclass(slots=True)
class _Tally:
    """The counts of a directory that is being looked at."""

    unservable_packages: int = 0
    unreadable_manifests: int = 0
    unservable_files: int = 0
    skipped_total: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, where: str, why: str) -> None:
        self.skipped_total += 1
        if len(self.skipped) < MAX_REPORTED:
            self.skipped.append(Skipped(where=printable(where), why=why))


def scan(root: Path, known: Mapping[str, ModelId]) -> Survey:
    """Look at the whole cache. `known` maps directory names to the ids that compute to them.

    Never raises for what is on disk: whatever cannot be looked at is in the report.
    """
    is_root_present = False
    try:
        with opened_root(root) as root_descriptor:
            is_root_present = root_descriptor is not None
            if not is_root_present:
                return Survey(problem=NO_ROOT)
            with opened_directory(MODELS_CACHE, below=root_descriptor, is_listable=True) as directory:
                names = [] if directory is None else sorted(names_in(directory))
                surveys = [survey_directory(name, below=directory, known=known.get(name)) for name in names]
    except (Refusal, Unavailable) as error:
        return Survey(is_root_present=is_root_present, problem=finding_of(error))
    return Survey(
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


def survey_directory(name: str, *, below: int | None, known: ModelId | None) -> DirectorySurvey:
    """Judge one directory. `known` is the id that facts speak of and that computes to its name."""
    tally = _Tally()
    if not is_v2_directory(name):
        tally.skip(name, "not a directory of the engine's present naming")
        return _result(tally)
    manifests = _load_manifests(name, below=below, tally=tally)
    claimed = _claimed_model(name, manifests)
    model = known or claimed
    if model is None:
        if manifests:
            tally.skip(name, "no fact and no manifest names the model whose directory this is")
        return _result(tally, is_nameless=bool(manifests))
    foreign = [package for package, manifest in manifests.items() if not manifest.is_of(model)]
    for package in foreign:
        tally.skip(f"{name}/{package}", "the manifest names another model")
    for package, manifest in manifests.items():
        if manifest.too_long and package not in foreign:
            tally.unservable_files += manifest.too_long
            tally.skip(f"{name}/{package}", _too_long(manifest.too_long))
    listed = tuple(
        list_package(model, package, manifests[package])
        for package in sorted(manifests)
        if package not in foreign
    )
    return _result(tally, model=model if listed else None, is_by_fact=claimed is None, listed=listed)


def _by_name(listed: ListedPackage) -> tuple[ModelId, PackageId]:
    return listed.model, listed.package


def _too_long(files: int) -> str:
    return (
        f"{files} of its files are not served: the handle has more than {MAX_NAME_SEGMENTS} segments "
        f"or {MAX_NAME_BYTES} bytes"
    )


def _result(tally: _Tally, **found: Any) -> DirectorySurvey:
    return DirectorySurvey(
        unservable_packages=tally.unservable_packages,
        unreadable_manifests=tally.unreadable_manifests,
        unservable_files=tally.unservable_files,
        skipped_total=tally.skipped_total,
        skipped=tuple(tally.skipped),
        **found,
    )


def _load_manifests(name: str, *, below: int | None, tally: _Tally) -> dict[PackageId, Manifest]:
    manifests: dict[PackageId, Manifest] = {}
    try:
        with opened_directory(name, below=below, is_listable=True) as directory:
            clear, ambiguous = ([], []) if directory is None else package_names(directory)
            for package in ambiguous:
                tally.skip(f"{name}/{package}", "another package differs from it only by case")
            for package in clear:
                where = f"{name}/{package}"
                try:
                    with opened_package(package, below=directory, root=None, roots=()) as found:
                        if found is None:
                            tally.skip(where, "no manifest: not finished yet, or left half-written")
                        else:
                            manifests[package] = found.manifest
                except (Refusal, Unavailable) as error:
                    tally.unservable_packages += 1
                    tally.unreadable_manifests += isinstance(error.__cause__, PermissionError)
                    tally.skip(where, finding_of(error))
    except (Refusal, Unavailable) as error:
        tally.skip(name, finding_of(error))
    return manifests


def _claimed_model(name: str, manifests: Mapping[PackageId, Manifest]) -> ModelId | None:
    """The id that a manifest claims, if it computes to this very directory."""
    for manifest in manifests.values():
        claimed_id = manifest.canonical_model_id
        if claimed_id is not None and model_directory(claimed_id) == name:
            return claimed_id
    return None
