"""Builds the routes that engines use: metadata, downloads, and both wrapped in `/proxy`.

Without a public URL there are none of these routes, as no link could be handed out that leads back here.
Without an upstream they answer from the cache alone, and nothing is relayed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway.faces import download, engine, proxy
from gateway.faces.route import FaceRoute
from gateway.model_metadata.caller_metadata import Offers
from gateway.model_metadata.link_effects import Minting
from gateway.model_metadata.links import EXPIRY_STEP_SECONDS
from gateway.model_metadata.local_metadata import LocalMetadata
from gateway.model_metadata.origins import Origins
from gateway.model_metadata.relay import Relay
from gateway.model_metadata.sealed_urls import SealedUrls
from gateway.model_metadata.sources import Metadata
from gateway.platform.upstream import Upstream

if TYPE_CHECKING:
    from gateway.assembly.pipeline import Pipeline
    from gateway.delivery.file_answer import Means

MARGIN_SECONDS = 60.0  # for clocks that differ between nodes, and the time until an answer reaches its client


def engine_routes(pipeline: Pipeline, means: Means) -> list[FaceRoute]:
    """The routes of these faces; none without a public URL."""
    settings = pipeline.settings
    if pipeline.links is None or pipeline.link_keys is None or settings.public_url is None:
        return []
    longest_link = settings.link_seconds + EXPIRY_STEP_SECONDS + MARGIN_SECONDS
    sealed = SealedUrls(
        pipeline.store, pipeline.link_keys.verifying, seconds=longest_link, clock=pipeline.clock
    )
    upstream = None
    if pipeline.provider is not None:
        upstream = Upstream(
            provider=pipeline.provider,
            decisions=pipeline.decisions,
            authority=pipeline.authority,
            clock=pipeline.clock,
            remembered_seconds=settings.allow_seconds,
        )
        pipeline.sweep(upstream.memory)
        # Closed before the provider's connections: requests in progress would open new ones.
        pipeline.upkeep.at_the_end = (upstream.close, *pipeline.upkeep.at_the_end)
    local = LocalMetadata(
        pipeline.catalogue,
        on_damaged=pipeline.telemetry.damaged_record,
        on_left_out=pipeline.telemetry.packages_left_out,
        held=pipeline.held_listings,
    )
    offers = Offers(
        metadata=Metadata(upstream=upstream, local=local, clock=pipeline.clock),
        decisions=pipeline.decisions,
        catalogue=pipeline.catalogue,
        origins=Origins(
            source=pipeline.facts,
            perform=pipeline.registrar.perform_held,
            clock=pipeline.clock,
            actor=f"worker:{pipeline.name}",
        ),
        sealed=sealed,
        links=pipeline.links,
        public_url=settings.public_url,
        is_relaying=settings.relay,
        minting=Minting(
            catalogue=pipeline.catalogue,
            pins=pipeline.pins,
            clock=pipeline.clock,
            link_seconds=settings.link_seconds + EXPIRY_STEP_SECONDS,
            note_links=None if pipeline.authority is None else pipeline.authority.note_links,
            on_failure=pipeline.telemetry.failed,
            on_items_failed=partial(pipeline.telemetry.items_failed, "links"),
        ),
        attestations=pipeline.attestations,
    )
    pipeline.sweep(local.memory, offers.memory)
    relay = None
    if pipeline.provider is not None:
        relay = Relay(
            provider=pipeline.provider, authorized_files=pipeline.guard.authorized_files, sealed=sealed
        )
    downloads = download.download_route(means, relay)
    unwrapping = proxy.Unwrapping(
        public_url=settings.public_url,
        upstream=settings.upstream,
        offers=offers,
        download=downloads,
    )
    return [*engine.routes(offers), FaceRoute(downloads), *proxy.routes(unwrapping, downloads)]
