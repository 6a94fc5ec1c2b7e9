"""The scanner: the scan kept current, by looking again only where something moved.

A directory's change time moves when a name in it comes or goes, and no writer can set it back. So one
look at `models-cache` finds new and removed models, and one at a model's directory new and removed
packages. What is new, unfinished or broken is opened at each look; of the rest each is looked at from
outside in its turn, a limited number at a time, and, much more rarely, opened again whatever its time
says. A change time that is younger than the clock is coarse proves nothing yet: such a directory
counts as unfinished.

It runs in a thread beside the event loop. Every step is a system call, which lets go of the
interpreter; what would hold on to it for long is done in small pieces. A model costs about 0.4 kB,
and each of its packages what `listed.py` says.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from gateway.model.errors import Refusal, Unavailable
from gateway.resource.listed import Listed
from gateway.resource.naming import MODELS_CACHE, is_v2_directory
from gateway.resource.rota import Rota
from gateway.resource.safe_open import names_in, opened_directory, opened_root
from gateway.resource.scan import MAX_REPORTED, NO_ROOT, DirectorySurvey, Survey, survey_directory
from gateway.resource.unservable import finding_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from gateway.model.names import ModelId

STATS_PER_LOOK = 10_000  # looks from outside, about 30 ms of one core
OPENED_PER_LOOK = 2_000  # unfinished and broken ones; a volume of nothing else must not occupy us for ever
REFRESHED_PER_LOOK = 50  # opened again though their time has not moved
SETTLING_SECONDS = 2.0  # the coarsest time stamps of a file system, and clocks that differ
GENTLE_CHUNK = 4_096  # names sorted at once: about a millisecond without letting go of the interpreter

_UNSETTLED = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is remembered of one directory. `stamp` is what its change time and inode came to."""

    stamp: int
    model: ModelId | None
    faults: DirectorySurvey | None  # None for the usual case: all packages servable, the model named


class Scanner:
    """The scan of one cache root. Not for two threads at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._forget()

    def look(self, known: Mapping[str, ModelId], now: float) -> Survey:
        """What is on disk now. `known` maps directory names to the ids that compute to them.

        Never raises for what is on disk: whatever cannot be looked at is in the report.
        """
        is_root_present = False
        try:
            with opened_root(self._root) as root_descriptor:
                is_root_present = root_descriptor is not None
                if not is_root_present:
                    self._forget()
                    return Survey(problem=NO_ROOT)
                with opened_directory(MODELS_CACHE, below=root_descriptor, is_listable=True) as directory:
                    if directory is None:
                        self._forget()
                    else:
                        self._look_below(directory, known, now)
        except (Refusal, Unavailable) as error:
            self._forget()
            return Survey(is_root_present=is_root_present, problem=finding_of(error))
        return self._survey()

    def _forget(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._models: list[ModelId] = []
        self._models_now: tuple[ModelId, ...] = ()
        self._listed = Listed()
        self._order: list[str] = []  # in the order of their turns
        self._looked_at = Rota()
        self._refreshed = Rota()
        self._folder = _UNSETTLED
        self._unfinished: dict[str, None] = {}  # a set that remembers the order
        self._by_fact: set[str] = set()
        self._faulty: dict[str, DirectorySurvey] = {}

    def _look_below(self, directory: int, known: Mapping[str, ModelId], now: float) -> None:
        new, vanished = self._compare(directory, now)
        appeared: list[ModelId] = []
        for name in self._due(new, directory, known, now):
            before = self._entries.get(name)
            after = self._judge(name, directory, known.get(name), now)
            model_before = None if before is None else before.model
            if after.model != model_before:
                if model_before is not None:
                    vanished.append(model_before)
                if after.model is not None:
                    appeared.append(after.model)
        if len(self._order) != len(self._entries) or new:
            self._order = list(self._entries)
        self._list(appeared, vanished)

    def _compare(self, directory: int, now: float) -> tuple[list[str], list[ModelId]]:
        """The names that are new below `models-cache`, and the models that went with those that are gone."""
        stamp = _stamp(os.fstat(directory), now)
        if stamp == self._folder and stamp != _UNSETTLED:
            return [], []
        self._folder = stamp
        names = names_in(directory)
        new = [name for name in names if name not in self._entries]
        if len(self._entries) + len(new) == len(names):
            return new, []
        present = set(names)
        return new, self._drop([name for name in self._entries if name not in present])

    def _due(self, new: list[str], directory: int, known: Mapping[str, ModelId], now: float) -> Iterator[str]:
        """The directories to open now, each once."""
        yielded: set[str] = set()

        def once(names: Iterable[str]) -> Iterator[str]:
            for name in names:
                if name not in yielded:
                    yielded.add(name)
                    yield name

        yield from once(new)
        yield from once(self._take_unfinished())
        yield from once([name for name in self._by_fact if name not in known])
        yield from once([name for name, one in self._faulty.items() if one.is_nameless and name in known])
        yield from once(self._moved(directory, now))
        yield from once(self._refresh())

    def _take_unfinished(self) -> list[str]:
        """Those that are open in any case, the longest waiting first; `_judge` puts them back at the end."""
        return list(islice(self._unfinished, OPENED_PER_LOOK))

    def _moved(self, directory: int, now: float) -> Iterator[str]:
        """Of those whose turn it is, the ones whose change time is another."""
        for name in self._looked_at.take(self._order, STATS_PER_LOOK):
            entry = self._entries.get(name)
            if entry is None or not is_v2_directory(name):
                continue
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                continue  # it has gone since: the next look does not list it
            if _stamp(found, now) != entry.stamp:
                yield name

    def _refresh(self) -> Iterator[str]:
        turn = self._refreshed.take(self._order, REFRESHED_PER_LOOK)
        yield from (name for name in turn if name in self._entries)

    def _judge(self, name: str, directory: int, known: ModelId | None, now: float) -> _Entry:
        stamp = _UNSETTLED
        if is_v2_directory(name):
            try:
                # Before it is opened: what changes while we look has another stamp afterwards.
                stamp = _stamp(os.stat(name, dir_fd=directory, follow_symlinks=False), now)
            except OSError:
                stamp = _UNSETTLED
        survey = survey_directory(name, below=directory, known=known)
        before = self._entries.get(name)
        faults = replace(survey, listed=()) if survey.skipped_total else None
        entry = self._entries[name] = _Entry(stamp, survey.model, faults)
        if before is not None and before.model != survey.model:
            self._listed.drop(before.model)
        self._listed.note(survey.model, survey.listed)
        self._unfinished.pop(name, None)
        if is_v2_directory(name) and (stamp == _UNSETTLED or faults is not None or survey.model is None):
            self._unfinished[name] = None
        if faults is None:
            self._faulty.pop(name, None)
        else:
            self._faulty[name] = faults
        (self._by_fact.add if survey.is_by_fact and survey.model else self._by_fact.discard)(name)
        return entry

    def _drop(self, removed: list[str]) -> list[ModelId]:
        models: list[ModelId] = []
        for name in removed:
            entry = self._entries.pop(name)
            self._listed.drop(entry.model)
            self._unfinished.pop(name, None)
            self._faulty.pop(name, None)
            self._by_fact.discard(name)
            if entry.model is not None:
                models.append(entry.model)
        return models

    def _list(self, appeared: list[ModelId], vanished: list[ModelId]) -> None:
        if not appeared and not vanished:
            return
        if len(appeared) + len(vanished) > GENTLE_CHUNK:
            self._models = _sorted_gently([one.model for one in self._entries.values() if one.model])
        else:
            for model in vanished:
                del self._models[bisect_left(self._models, model)]
            for model in appeared:
                insort(self._models, model)
        self._models_now = tuple(self._models)

    def _survey(self) -> Survey:
        faulty = self._faulty.values()
        first = heapq.nsmallest(MAX_REPORTED, self._faulty)
        listed = self._listed.of(self._models)
        return Survey(
            models=self._models_now,
            listed=listed,
            is_root_present=True,
            is_readable=True,
            packages=len(listed),
            unservable_packages=sum(one.unservable_packages for one in faulty),
            unreadable_manifests=sum(one.unreadable_manifests for one in faulty),
            unservable_files=sum(one.unservable_files for one in faulty),
            skipped_total=sum(one.skipped_total for one in faulty),
            skipped=tuple(skipped for name in first for skipped in self._faulty[name].skipped)[:MAX_REPORTED],
        )


def _stamp(found: os.stat_result, now: float) -> int:
    """Inode and times as one number; `_UNSETTLED` for a change that another could still follow unseen."""
    if found.st_ctime > now - SETTLING_SECONDS:
        return _UNSETTLED
    return hash((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)) or 1


def _sorted_gently(models: list[ModelId]) -> list[ModelId]:
    """Sorted, without holding on to the interpreter for the length of one large sort."""
    chunks = [sorted(models[start : start + GENTLE_CHUNK]) for start in range(0, len(models), GENTLE_CHUNK)]
    return list(heapq.merge(*chunks))
