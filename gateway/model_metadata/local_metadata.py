"""Make a model's metadata from the cache, for when no provider is asked.

The catalogue gives the manifests and the registry record as bytes, and `gateway/engine` makes an answer of
them, in a thread where they are large. A damaged record is ignored: it only adds detail. It is reported to
the operator once for each model.

A small answer is kept while the manifests and the record are the same on disk.

The number of packages and files in an answer is bounded (`BOUNDS`), to that of a provider's page. Packages
beyond it are left out, which is reported as well.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.engine.local_answers import PackageOnDisk, find_local_answer
from gateway.engine.registry import parse_record
from gateway.model.bounded_memory import BoundedMemory
from gateway.model.errors import Refusal
from gateway.resource.disk_checks import SeenOnDisk
from gateway.resource.raw_model import DescriptionBounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.engine.answers import MetadataPage
    from gateway.engine.registry import RegistryRecord
    from gateway.model.names import ModelId, PackageId
    from gateway.model.pins import StatIdentity
    from gateway.resource.catalogue import DiskCatalogue
    from gateway.resource.held_listings import HeldListings
    from gateway.resource.raw_model import RawPackage, RawPackages

    Withheld = Callable[[ModelId, Sequence[RawPackage]], Awaitable[frozenset[PackageId]]]

SHOWN_IN_STAT = ("type", "modelId", "modelArchitecture", "modelVariant", "taskType")
MOST_TOLD = 1_000  # models that something was reported about; beyond that, no more is reported

BOUNDS = DescriptionBounds(packages=256, files=2_000, manifest_bytes=512 * 1024)
"""A provider's page has two thousand files at most, and so has a request of the engine. Making an answer of
so many takes a tenth of a second, in a thread.
"""

AT_ONCE_BYTES = 16 * 1024  # of manifests and record: a smaller answer is made on the event loop

REMEMBERED_BYTES = 16 << 20  # of small answers
ANSWER_BYTES = 1_000  # of one, beside what it was parsed from and the fields of that: measured, rounded up


class _Made(msgspec.Struct, frozen=True):
    """A small answer, and what it was made of."""

    answer: MetadataPage
    packages: RawPackages  # the very object that `HeldListings` holds while the disk is the same
    record: StatIdentity | None  # of the registry record


class LocalMetadata:
    """The cache's metadata of models."""

    def __init__(
        self,
        catalogue: DiskCatalogue,
        *,
        on_damaged: Callable[[ModelId], None],
        on_left_out: Callable[[ModelId, int], None],
        held: HeldListings | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._held = held
        self._on_damaged = on_damaged
        self._on_left_out = on_left_out
        self._told: set[ModelId] = set()
        self.memory: BoundedMemory[ModelId, _Made] = BoundedMemory(
            max_bytes=REMEMBERED_BYTES, weigh=_held_bytes
        )

    def find_now(self, model: ModelId, looks: SeenOnDisk) -> MetadataPage | None:
        """The answer about the model, from memory, checked on disk; None where `find` has to make it."""
        packages = None if self._held is None else self._held.find_manifests(model, looks)
        return None if packages is None else self._recall(model, packages, looks)

    def _recall(self, model: ModelId, packages: RawPackages, looks: SeenOnDisk) -> MetadataPage | None:
        """The answer that was made of these packages and of the record as it is now."""
        made = self.memory.find(model)
        if self._held is None or made is None or made.packages is not packages:
            return None
        return made.answer if self._held.find_record(model, looks) == made.record else None

    async def find(self, model: ModelId, withheld: Withheld | None = None) -> MetadataPage | None:
        """An answer about the model; None when the cache has nothing to describe.

        `withheld` returns which of the packages are to be left out.
        """
        found = await self._find_packages(model)
        if found.left_out and self._is_told_first(model):
            self._on_left_out(model, found.left_out)
        away = await withheld(model, found.packages) if withheld is not None and found.packages else ()
        on_disk = [
            PackageOnDisk(package=one.package, raw_manifest=one.raw_manifest, servable=one.servable)
            for one in found.packages
            if one.package not in away
        ]
        if not on_disk:
            return None
        known = None if away else self._recall(model, found, SeenOnDisk())
        if known is not None:
            return known
        record = None if self._held is None else self._held.find_record(model, SeenOnDisk())
        raw_record = self._find_raw_record(model)
        size = len(raw_record or b"") + sum(len(one.raw_manifest) for one in on_disk)
        if size <= AT_ONCE_BYTES:
            answer, is_damaged = _make(model, on_disk, raw_record)
            if answer is not None and not (away or is_damaged):
                self._remember(model, _Made(answer, found, record))
        else:
            answer, is_damaged = await self._catalogue.in_thread(lambda: _make(model, on_disk, raw_record))
        if is_damaged:
            self._note_damaged(model)
        return answer

    async def find_stat(self, model: ModelId) -> dict[str, Any] | None:
        """The head of that answer alone, as `/stat` gives it."""
        answer = await self.find(model)
        return None if answer is None else stat_of(answer)

    def _remember(self, model: ModelId, made: _Made) -> None:
        """Keep an answer, if any later change of the record would show, and none came while it was read."""
        held = self._held
        if held is None or not held.is_settled(made.record):
            return
        if held.find_record(model, SeenOnDisk()) == made.record:
            self.memory.put(model, made)

    async def _find_packages(self, model: ModelId) -> RawPackages:
        held = self._held
        if held is None:
            return await self._catalogue.raw_packages(model, BOUNDS)
        known = held.find_manifests(model, SeenOnDisk())
        if known is None:
            before = held.checks_of_model(model)
            known = await self._catalogue.raw_packages(model, BOUNDS)
            held.hold_manifests(model, known, before)
        return known

    def _find_raw_record(self, model: ModelId) -> bytes | None:
        try:
            return self._catalogue.registry_record(model)
        except Refusal:
            self._note_damaged(model)
            return None

    def _note_damaged(self, model: ModelId) -> None:
        if self._is_told_first(model):
            self._on_damaged(model)

    def _is_told_first(self, model: ModelId) -> bool:
        if model in self._told or len(self._told) >= MOST_TOLD:
            return False
        self._told.add(model)
        return True


def stat_of(answer: MetadataPage) -> dict[str, Any]:
    """The head of an answer alone, as `/stat` gives it."""
    metadata = answer.tree.metadata
    shown = {name: metadata[name] for name in SHOWN_IN_STAT if name in metadata}
    return {"modelMetadata": {**shown, "modelLatencyMs": None}}


def _held_bytes(model: ModelId, made: _Made) -> int:
    raw = sum([len(one.raw_manifest) for one in made.packages.packages])
    return ANSWER_BYTES + getsizeof(model) + 3 * raw + made.answer.held_bytes


def _make(
    model: ModelId, on_disk: Sequence[PackageOnDisk], raw_record: bytes | None
) -> tuple[MetadataPage | None, bool]:
    """The answer, and whether the record was damaged. May run in a thread."""
    record: RegistryRecord | None = None
    is_damaged = False
    try:
        record = None if raw_record is None else parse_record(raw_record, model)
    except Refusal:
        is_damaged = True
    return find_local_answer(model, on_disk, record), is_damaged
