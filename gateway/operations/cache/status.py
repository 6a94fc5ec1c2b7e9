"""The state of the cache's content: pinned, not yet pinned, in quarantine, and shared across owners.

A blob that packages of two owners link is the normal case of deduplication. It is listed because there one
tenant's file is another tenant's file: a writer of one writes both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from gateway.assembly.components import build_catalogue
from gateway.model.names import ancestors
from gateway.model.standing import standing_of
from gateway.operations.cache.files import each_listing
from gateway.resource.blobs import blobs_below

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.model.facts import ModelRule
    from gateway.model.names import Md5, ModelId, Pattern
    from gateway.model.pins import Pin
    from gateway.operations.session import OperatorSession
    from gateway.resource.catalogue import DiskCatalogue

NOBODY = "(no owner)"


@dataclass(slots=True)
class Share:
    """A number of files and their total size."""

    count: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Add one file."""
        self.count += 1
        self.bytes += size


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that models of more than one owner link."""

    md5: Md5
    size: int
    owners: tuple[str, ...]
    models: tuple[ModelId, ...]


@dataclass(slots=True)
class CacheStatus:
    """The counts. Blobs are those on this disk; the quarantine is the whole fleet's."""

    models: int = 0
    packages: int = 0
    links: int = 0
    pinned: Share = field(default_factory=Share)
    unpinned: Share = field(default_factory=Share)
    quarantined: Share = field(default_factory=Share)
    unlinked: Share = field(default_factory=Share)
    package_files: Share = field(default_factory=Share)
    quarantined_pins: list[Pin] = field(default_factory=list)
    crossing: list[Crossing] = field(default_factory=list)

    def shares(self) -> dict[str, Share]:
        """The blobs on this disk by their state; `unlinked` ones are counted in one of the others too."""
        return {
            "pinned": self.pinned,
            "unpinned": self.unpinned,
            "quarantined": self.quarantined,
            "unlinked": self.unlinked,
        }


async def load_status(session: OperatorSession) -> CacheStatus:
    """Read the disk and the facts. Nothing is hashed and nothing is changed."""
    status = CacheStatus()
    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    await catalogue.refresh(await session.listing.known_models())
    blobs = await asyncio.to_thread(
        lambda: {md5: found[2] for md5, found in blobs_below(session.settings.cache_root)}
    )
    linked = await _walk(catalogue, status)
    status.quarantined_pins = await session.listing.list_quarantined()
    pins = {pin.md5: pin for pin in await session.listing.find_pins(list(blobs))}
    for md5, size in blobs.items():
        _share_of(status, pins.get(md5)).add(size)
        if md5 not in linked:
            status.unlinked.add(size)
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    status.crossing = _crossing(linked, blobs, rules)
    return status


async def _walk(catalogue: DiskCatalogue, status: CacheStatus) -> dict[Md5, set[ModelId]]:
    """Which models link which blob."""
    linked: dict[Md5, set[ModelId]] = {}
    status.models = len(catalogue.models())
    async for listing in each_listing(catalogue):
        status.packages += 1
        for file in listing.files:
            if file.md5 is None:
                status.package_files.add(file.size)
            else:
                status.links += 1
                linked.setdefault(file.md5, set()).add(listing.model)
    return linked


def _share_of(status: CacheStatus, pin: Pin | None) -> Share:
    if pin is None:
        return status.unpinned
    if pin.quarantine is not None:
        return status.quarantined
    return status.unpinned if pin.sha256 is None else status.pinned


def _crossing(
    linked: Mapping[Md5, set[ModelId]], sizes: Mapping[Md5, int], rules: Mapping[Pattern, ModelRule]
) -> list[Crossing]:
    owners: dict[ModelId, str] = {}

    def owner_of(model: ModelId) -> str:
        if model not in owners:
            standing = standing_of([rules[pattern] for pattern in ancestors(model) if pattern in rules])
            owners[model] = standing.owner or NOBODY
        return owners[model]

    crossing: list[Crossing] = []
    for md5, models in sorted(linked.items()):
        found = sorted({owner_of(model) for model in models})
        if len(found) > 1:
            crossing.append(
                Crossing(md5=md5, size=sizes.get(md5, 0), owners=tuple(found), models=tuple(sorted(models)))
            )
    return crossing
