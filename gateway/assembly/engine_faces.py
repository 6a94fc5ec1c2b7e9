"""The engine's faces of one worker, built of its rooms: metadata, downloads, and both wrapped in `/proxy`.

Without a public URL there is nothing to hand out that could come back, and none of them is there. Without
an upstream they answer from the cache alone, and nothing is relayed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.faces import download, engine, proxy
from gateway.model_metadata.caller_metadata import Offers
from gateway.model_metadata.link_effects import Minting
from gateway.model_metadata.links import EXPIRY_STEP_SECONDS
from gateway.model_metadata.local_metadata import LocalMetadata
from gateway.model_metadata.origins import Origins
from gateway.model_metadata.relay import Relay
from gateway.model_metadata.sealed_urls import SealedUrls
from gateway.model_metadata.sources import Metadata
from gateway.platform.upstream import Upstream
from gateway.registrar import Registrar

if TYPE_CHECKING:
    from gateway.assembly.rooms import Rooms
    from gateway.delivery.file import Means
    from gateway.faces.route import FaceRoute

MARGIN_SECONDS = 60.0  # clocks of two nodes, and the time that an answer takes to its client


def engine_routes(rooms: Rooms, means: Means) -> list[FaceRoute]:
    """The routes of these faces; none without a public URL."""
    settings = rooms.settings
    if rooms.links is None or rooms.link_keys is None or settings.public_url is None:
        return []
    longest_link = settings.link_seconds + EXPIRY_STEP_SECONDS + MARGIN_SECONDS
    sealed = SealedUrls(rooms.store, rooms.link_keys.verifying, seconds=longest_link, clock=rooms.clock)
    upstream = None
    if rooms.provider is not None:
        upstream = Upstream(
            provider=rooms.provider,
            decisions=rooms.decisions,
            authority=rooms.authority,
            clock=rooms.clock,
            remembered_seconds=settings.allow_seconds,
        )
        rooms.sweep(upstream.memory)
        # Before the provider's connections are let go of: what is under way would open new ones.
        rooms.upkeep.at_the_end = (upstream.close, *rooms.upkeep.at_the_end)
    offers = Offers(
        metadata=Metadata(
            upstream=upstream,
            local=LocalMetadata(
                rooms.catalogue,
                on_damaged=rooms.telemetry.damaged_record,
                on_left_out=rooms.telemetry.packages_left_out,
            ),
            clock=rooms.clock,
        ),
        decisions=rooms.decisions,
        catalogue=rooms.catalogue,
        origins=Origins(
            source=rooms.facts,
            perform=Registrar(store=rooms.store, recorder=rooms.recorder).perform_held,
            clock=rooms.clock,
            actor=f"worker:{rooms.name}",
        ),
        sealed=sealed,
        links=rooms.links,
        public_url=settings.public_url,
        is_relaying=settings.relay,
        minting=Minting(
            catalogue=rooms.catalogue,
            pins=rooms.pins,
            clock=rooms.clock,
            link_seconds=settings.link_seconds + EXPIRY_STEP_SECONDS,
            note_links=None if rooms.authority is None else rooms.authority.note_links,
            on_failure=rooms.telemetry.failed,
            on_items_failed=partial(rooms.telemetry.items_failed, "links"),
        ),
        attestations=rooms.attestations,
    )
    relay = None
    if rooms.provider is not None:
        relay = Relay(provider=rooms.provider, authorized_files=rooms.guard.authorized_files, sealed=sealed)
    unwrapping = proxy.Unwrapping(
        public_url=settings.public_url,
        upstream=settings.upstream,
        offers=offers,
        download=download.declared(relay),
    )
    return [
        *engine.routes(offers),
        *download.routes(means, relay),
        *proxy.routes(unwrapping, download.served(means, relay)),
    ]
