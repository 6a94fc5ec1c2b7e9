"""The state of the cache's content: pinned, not yet pinned, in quarantine, and shared across owners.

A blob that packages of two owners link is the normal case of deduplication. It is listed because there one
tenant's file is another tenant's file: a writer of one writes both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import field

from gateway.assembly.components import build_catalogue
from gateway.model.moments import when
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


class Share(msgspec.Struct):
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
    bytes: int
    owners: tuple[str, ...]
    models: tuple[ModelId, ...]


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is not served, and why."""

    md5: Md5
    cause: str | None
    since: str | None
    pinned_sha256: str | None
    found_sha256: str | None


class CacheStatus(msgspec.Struct, kw_only=True):
    """The counts. Blobs are those on this disk; the quarantine is the whole fleet's.

    `unlinked` blobs are counted in one of the other states too.
    """

    models: int = 0
    packages: int = 0
    links: int = 0
    package_files: Share = field(default_factory=Share)
    blobs: dict[str, Share] = field(
        default_factory=lambda: {name: Share() for name in ("pinned", "unpinned", "quarantined", "unlinked")}
    )
    quarantined: list[Quarantined] = field(default_factory=list)
    crossing_links: list[Crossing] = field(default_factory=list)


async def load_status(session: OperatorSession) -> CacheStatus:
    """Read the disk and the facts. Nothing is hashed and nothing is changed."""
    status = CacheStatus()
    catalogue = build_catalogue(session.settings, session.clock, is_command=True)
    await catalogue.refresh(await session.listing.known_models())
    blobs = await asyncio.to_thread(
        lambda: {md5: found[2] for md5, found in blobs_below(session.settings.cache_root)}
    )
    linked = await _walk(catalogue, status)
    status.quarantined = [_held(pin) for pin in await session.listing.list_quarantined()]
    pins = {pin.md5: pin for pin in await session.listing.find_pins(list(blobs))}
    for md5, size in blobs.items():
        status.blobs[_state_of(pins.get(md5))].add(size)
        if md5 not in linked:
            status.blobs["unlinked"].add(size)
    rules = {rule.pattern: rule for rule in await session.listing.list_rules()}
    status.crossing_links = _crossing(linked, blobs, rules)
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


def _state_of(pin: Pin | None) -> str:
    if pin is not None and pin.quarantine is not None:
        return "quarantined"
    return "unpinned" if pin is None or pin.sha256 is None else "pinned"


def _held(pin: Pin) -> Quarantined:
    quarantine = pin.quarantine
    return Quarantined(
        md5=pin.md5,
        cause=quarantine.cause if quarantine else None,
        since=when(quarantine.since if quarantine else None),
        pinned_sha256=pin.sha256,
        found_sha256=quarantine.found_sha256 if quarantine else None,
    )


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
                Crossing(md5=md5, bytes=sizes.get(md5, 0), owners=tuple(found), models=tuple(sorted(models)))
            )
    return crossing
