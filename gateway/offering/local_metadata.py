"""Metadata of a model from what lies in the cache, for when no provider is asked.

The catalogue gives the manifests and the registry record as bytes, and the room of the engine's protocol
makes an answer of them. A record that is damaged is as good as none: it only adds detail. What was found
in it is told to the operator, once for each model as long as it stays so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.engine.local_answers import PackageOnDisk, find_local_answer
from gateway.engine.registry import parse_record
from gateway.model.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from gateway.engine.answers import Answer
    from gateway.engine.registry import Record
    from gateway.model.names import ModelId, PackageId
    from gateway.resource.catalogue import DiskCatalogue

SHOWN_IN_STAT = ("type", "modelId", "modelArchitecture", "modelVariant", "taskType")
MOST_TOLD = 1_000  # models whose damaged record was told of; beyond that, no more is


class LocalMetadata:
    """What the cache has to say of a model."""

    def __init__(self, catalogue: DiskCatalogue, on_damaged: Callable[[ModelId], None]) -> None:
        self._catalogue = catalogue
        self._on_damaged = on_damaged
        self._told: set[ModelId] = set()

    def find(self, model: ModelId, withheld: Container[PackageId] = ()) -> Answer | None:
        """An answer about the model, without these packages; None when there is nothing to be said."""
        on_disk = [
            PackageOnDisk(package=one.package, raw_manifest=one.raw_manifest, servable=one.servable)
            for one in self._catalogue.raw_packages(model)
            if one.package not in withheld
        ]
        return find_local_answer(model, on_disk, self._find_record(model)) if on_disk else None

    def find_stat(self, model: ModelId) -> dict[str, Any] | None:
        """The head of that answer alone, as `/stat` gives it."""
        answer = self.find(model)
        if answer is None:
            return None
        metadata = answer.tree.metadata
        shown = {name: metadata[name] for name in SHOWN_IN_STAT if name in metadata}
        return {"modelMetadata": {**shown, "modelLatencyMs": None}}

    def _find_record(self, model: ModelId) -> Record | None:
        try:
            raw = self._catalogue.registry_record(model)
            return None if raw is None else parse_record(raw, model)
        except Refusal:
            if model not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(model)
                self._on_damaged(model)
            return None
