"""Keep the scan current by scanning again only the directories that changed.

A directory's change time is updated when a name in it is added or removed, and no writer can set it back. So
one `stat` of `models-cache` detects new and removed models, and one of a model's directory new and removed
packages. At each scan, new, unfinished and broken directories are opened. Of the others a limited number is
checked with `stat`, round-robin, and a much smaller number is opened again whatever its change time is. A
change time younger than the resolution of the clock proves nothing: such a directory counts as unfinished.

The scan runs in a thread beside the event loop. Every step is a system call, which releases the interpreter
lock; long computations are done in slices. A model costs about 0.4 kB, and each of its packages what
`listed.py` says. The number of directories is bounded (`MAX_DIRECTORIES`). Names that the engine would not
make are counted, and the first of them reported.

When the disk or the machine fails (an I/O error, no descriptors left), a directory stays in the list as it
was: that it cannot be read does not mean that it is gone.
"""

from __future__ import annotations

import heapq
import os
from bisect import bisect_left, insort
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.model.errors import Refusal, Unavailable
from gateway.resource.listed import Listed
from gateway.resource.naming import MODELS_CACHE, is_v2_directory
from gateway.resource.presence import find_absence, note_presence, read_folders
from gateway.resource.round_robin import RoundRobin
from gateway.resource.safe_open import each_name_in, opened_cache_folder, opened_root
from gateway.resource.scan import (
    MAX_DIRECTORIES,
    MAX_REPORTED,
    OLD_NAMING,
    DirectorySurvey,
    Gist,
    Looking,
    Skipped,
    Survey,
    judged,
    survey_directory,
    unreadable,
)
from gateway.resource.slices import in_slices, no_pause, sorted_in_slices
from gateway.resource.unservable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from gateway.model.names import ModelId, PackageId
    from gateway.model.presence import SeenCache
    from gateway.resource.manifests import Manifests

STATS_PER_LOOK = 10_000  # checked with `stat`, about 30 ms of one core
OPENED_PER_LOOK = 2_000  # unfinished and broken ones; a volume of nothing else must not occupy us for ever
REFRESHED_PER_LOOK = 50  # opened again although their change time is the same
RELIABLE_AFTER_SECONDS = 2.0  # the coarsest time stamps of a file system, and clocks that differ
NAMES_PER_SLICE = 1_000  # read between two pauses, about a millisecond
MANY = 4_096  # models added or removed at once: beyond it the list is sorted anew
MAX_DETAILED = 10_000  # findings that are kept, of a kilobyte at most; the rest is counted

_UNRELIABLE = 0


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """What is remembered of one directory. `stamp` is a hash of its inode and times.

    Excluded from garbage collection (`gc=False`): a collection over all of them would stop every thread.
    """

    stamp: int
    model: ModelId | None


class Scanner:
    """The scan of one cache root. Not for two threads at once. `pause` is called between slices of work."""

    def __init__(
        self, root: Path, *, manifests: Manifests, seen: SeenCache, pause: Callable[[], None] = no_pause
    ) -> None:
        self._root = root
        self._manifests = manifests
        self._seen = seen
        self._pause = pause
        self._forget()

    def look(self, known: Mapping[str, ModelId], now: float) -> Survey:
        """Scan what is on disk now. `known` maps directory names to the ids that compute to them.

        Never raises for what is on disk: whatever cannot be read is in the report.
        """
        try:
            folders = read_folders(self._root)
            with (
                opened_root(self._root) as root,
                opened_cache_folder(MODELS_CACHE, below=root, is_listable=True) as directory,
            ):
                if directory is None:
                    self._forget()
                else:
                    looking = Looking(manifests=self._manifests, now=now, pause=self._pause)
                    self._look_below(directory, known, looking)
            problem = find_absence(self._root, folders, has_models=bool(self._models_now), cache=self._seen)
            if problem is not None:
                return Survey(is_root_present=True, problem=problem)
            if self._models_now:
                # a failure of the state folder: only the record of presence is lost
                with suppress(Unavailable):
                    note_presence(self._root, folders, self._seen)
        except (Refusal, Unavailable) as error:
            self._forget()
            return unreadable(error)
        return judged(self._survey())

    def _forget(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._models: list[ModelId] = []
        self._models_now: tuple[ModelId, ...] = ()
        self._listed = Listed()
        self._order: list[str] = []  # in round-robin order
        self._checked = RoundRobin()
        self._refreshed = RoundRobin()
        self._folder = _UNRELIABLE
        self._unfinished: dict[str, None] = {}  # an ordered set
        self._by_fact: set[str] = set()
        self._faulty: dict[str, DirectorySurvey] = {}
        self._detailed = 0  # how many of their findings are kept
        self._gists: dict[str, Mapping[PackageId, Gist]] = {}
        self._others: list[str] = []  # the first names that the engine would not make
        self._others_total = 0
        self._too_many = 0  # directories beyond the limit

    def _look_below(self, directory: int, known: Mapping[str, ModelId], looking: Looking) -> None:
        new, vanished = self._compare(directory, looking.now)
        appeared: list[ModelId] = []
        for name in self._due(new, directory, known, looking.now):
            before = self._entries.get(name)
            after = self._judge(name, directory, known.get(name), looking)
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
        """The names that are new below `models-cache`, and the models of the directories that are gone."""
        stamp = _stamp(os.fstat(directory), now)
        if stamp == self._folder and stamp != _UNRELIABLE:
            return [], []
        self._folder = stamp
        new, present = self._take_in(directory)
        vanished: list[ModelId] = []
        if len(present) < len(self._entries):
            vanished = self._drop([name for name in self._entries if name not in present])
        room = MAX_DIRECTORIES - len(self._entries)
        self._too_many += len(new[room:])
        return new[:room], vanished

    def _take_in(self, directory: int) -> tuple[list[str], set[str]]:
        """The names of new directories, and of known ones that still exist; other names are counted."""
        new: list[str] = []
        present: set[str] = set()
        others: list[str] = []
        self._others_total = self._too_many = 0
        for name in in_slices(each_name_in(directory), NAMES_PER_SLICE, self._pause):
            if not is_v2_directory(name):
                self._others_total += 1
                others.append(name)
                if len(others) > NAMES_PER_SLICE:
                    others = heapq.nsmallest(MAX_REPORTED, others)
            elif name in self._entries:
                present.add(name)
            elif len(new) < MAX_DIRECTORIES:
                new.append(name)
            else:
                self._too_many += 1
        self._others = heapq.nsmallest(MAX_REPORTED, others)
        return new, present

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
        yield from once(self._changed(directory, now))
        yield from once(self._refresh())

    def _take_unfinished(self) -> list[str]:
        """The directories that are opened at every scan, the longest waiting first.

        `_judge` appends them again.
        """
        return list(islice(self._unfinished, OPENED_PER_LOOK))

    def _changed(self, directory: int, now: float) -> Iterator[str]:
        """Of the next batch, the directories whose change time differs."""
        for name in self._checked.take(self._order, STATS_PER_LOOK):
            entry = self._entries.get(name)
            if entry is None:
                continue
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                continue  # it was removed since: the next scan does not list it
            if _stamp(found, now) != entry.stamp:
                yield name

    def _refresh(self) -> Iterator[str]:
        batch = self._refreshed.take(self._order, REFRESHED_PER_LOOK)
        yield from (name for name in batch if name in self._entries)

    def _judge(self, name: str, directory: int, known: ModelId | None, looking: Looking) -> _Entry:
        try:
            # Taken before it is opened, so that a change during the scan gives another stamp.
            stamp = _stamp(os.stat(name, dir_fd=directory, follow_symlinks=False), looking.now)
        except OSError:
            stamp = _UNRELIABLE
        kept = self._gists.get(name)
        survey = survey_directory(name, below=directory, known=known, looking=looking, before=kept)
        before = self._entries.get(name)
        if survey.is_undecided and before is not None:
            # The previous result stays in force. It stays among the unfinished, and is opened again at the
            # next scan.
            entry = self._entries[name] = _Entry(_UNRELIABLE, before.model)
        else:
            entry = self._entries[name] = _Entry(stamp, survey.model)
            if before is not None and before.model != survey.model:
                self._listed.drop(before.model)
            self._listed.note(survey.model, survey.listed)
            self._keep_gists(name, survey.gists)
            self._by_fact.discard(name)
            if survey.is_by_fact and survey.model:
                self._by_fact.add(name)
        self._note_faults(name, survey)
        self._unfinished.pop(name, None)
        if entry.stamp == _UNRELIABLE or survey.skipped_total or entry.model is None:
            self._unfinished[name] = None
        return entry

    def _keep_gists(self, name: str, gists: Mapping[PackageId, Gist]) -> None:
        if gists:
            self._gists[name] = gists
        else:
            self._gists.pop(name, None)

    def _note_faults(self, name: str, survey: DirectorySurvey) -> None:
        before = self._faulty.pop(name, None)
        if before is not None:
            self._detailed -= len(before.skipped)
        if not survey.skipped_total:
            return
        details = survey.skipped if self._detailed < MAX_DETAILED else ()
        self._detailed += len(details)
        self._faulty[name] = replace(survey, listed=(), gists={}, skipped=details)

    def _drop(self, removed: list[str]) -> list[ModelId]:
        models: list[ModelId] = []
        for name in removed:
            entry = self._entries.pop(name)
            self._listed.drop(entry.model)
            self._unfinished.pop(name, None)
            self._note_faults(name, _NOTHING)
            self._keep_gists(name, {})
            self._by_fact.discard(name)
            if entry.model is not None:
                models.append(entry.model)
        return models

    def _list(self, appeared: list[ModelId], vanished: list[ModelId]) -> None:
        if not appeared and not vanished:
            return
        if len(appeared) + len(vanished) > MANY:
            models = [one.model for one in self._entries.values() if one.model]
            self._models = list(sorted_in_slices(models, pause=self._pause))
        else:
            for model in vanished:
                del self._models[bisect_left(self._models, model)]
            for model in appeared:
                insort(self._models, model)
        self._models_now = tuple(self._models)

    def _survey(self) -> Survey:
        faulty = self._faulty.values()
        listed = self._listed.of(self._models)
        others = self._others_total + self._too_many
        return Survey(
            models=self._models_now,
            listed=listed,
            is_root_present=True,
            is_readable=True,
            packages=len(listed),
            unservable_packages=sum(one.unservable_packages for one in faulty),
            unreadable_manifests=sum(one.unreadable_manifests for one in faulty),
            unservable_files=sum(one.unservable_files for one in faulty),
            skipped_total=sum(one.skipped_total for one in faulty) + others,
            skipped=tuple(islice(self._skipped(), MAX_REPORTED)),
        )

    def _skipped(self) -> Iterator[Skipped]:
        if self._too_many:
            why = f"it holds more than {MAX_DIRECTORIES} directories; {self._too_many} of them are not listed"
            yield Skipped(where=MODELS_CACHE, why=why)
        for name in heapq.nsmallest(MAX_REPORTED, chain(self._faulty, self._others)):
            if name in self._faulty:
                yield from self._faulty[name].skipped
            else:
                yield Skipped(where=printable(name), why=OLD_NAMING)


_NOTHING = DirectorySurvey()


def _stamp(found: os.stat_result, now: float) -> int:
    """Device, inode and times as one number.

    `_UNRELIABLE` for a change that another could follow unnoticed.
    """
    if found.st_ctime > now - RELIABLE_AFTER_SECONDS:
        return _UNRELIABLE
    return hash((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)) or 1
